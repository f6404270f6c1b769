/**
 * A guest that libvirt manages: `virsh migrate` moves it, and this process is where its stream goes. libvirt decides
 * when the guest is handed over; what is settled here is what its decision rests on. Before the guest is held, the
 * destination cannot run it, so whatever ends virsh leads back to the source. While it is held, only the destination's
 * own answer reaches libvirt, or none.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type DomainAddress,
  type DomainDescription,
  type DomainInspection,
  type DomainMigration,
  domainState,
  domainXml,
  type GuestInspection,
  type GuestServices,
  HypervisorError,
  inspectDomain,
  inspectDomainServices,
  inspectForLibvirt,
  isActive,
  LibvirtError,
  type LibvirtMonitorClient,
  type MigrationState,
  migrateDomain,
  migrationState,
  openMonitor,
  parseDomain,
  type QmpMonitor,
  Virsh,
} from '../../hypervisor/index.js';
import { untilAborted } from '../untilAborted.js';
import { makeStreamPath } from './libvirtPaths.js';
import { TunnelEntrance } from './libvirtTunnel.js';
import type { Departure, DomainDeparture, SourceGuest } from './sourceGuest.js';
import { leavingOut, VirshGuard } from './virshGuard.js';
import { VirshQga } from './virshQga.js';

const pollMs = 50;
/** For libvirt to put things in order after a stream that broke. */
const unwindTimeoutMs = 8_000;
/** For the same once it has lost the destination, too. */
const cutTimeoutMs = 5_000;
/** From the destination's running the guest to the source's having ended it. */
const releaseTimeoutMs = 20_000;
/** From QEMU's hanging up to libvirt's saying why. */
const lastWordsMs = 1_000;
/** Of what libvirt may know the reason of. */
const consequences: ReadonlySet<unknown> = new Set(['VMMIG_RELAY_QEMU', 'VMMIG_LIBVIRT_UNREACHABLE']);
/** There while the guest is held. */
const heldFile = 'held';

export class LibvirtSource implements SourceGuest {
  readonly monitor: LibvirtMonitorClient;
  readonly patientMonitor: QmpMonitor;
  readonly #virsh: Virsh;
  readonly #address: DomainAddress;
  #departure: (Departure & { readonly domain: DomainDeparture }) | null = null;
  #migration: DomainMigration | null = null;
  #tunnel: TunnelEntrance | null = null;
  #guard: Promise<VirshGuard | null> = Promise.resolve(null);
  #previousDowntimeMs: number | null = null;
  #isHeld = false;
  #description: DomainDescription | null = null;

  constructor(address: DomainAddress) {
    this.#address = address;
    this.#virsh = new Virsh(address.uri);
    this.monitor = openMonitor(this.#virsh, address);
    this.patientMonitor = this.monitor.patient;
  }

  async streamPath(migrationId: string): Promise<string> {
    return await makeStreamPath(migrationId, null);
  }

  async inspect(signal: AbortSignal): Promise<GuestInspection> {
    this.#description = parseDomain(await domainXml(this.#virsh, this.#address.domain, { signal }));
    return await inspectDomain(this.monitor, this.#address, this.#description, signal);
  }

  async inspectForLibvirt(signal: AbortSignal): Promise<DomainInspection> {
    return await inspectForLibvirt(this.#virsh, this.monitor, this.#address, this.#description!, { signal });
  }

  async inspectServices(signal: AbortSignal): Promise<GuestServices> {
    return await inspectDomainServices(this.#virsh, this.#address, this.#description!, { signal });
  }

  openQga(): VirshQga {
    return new VirshQga(this.#address);
  }

  async prepare(departure: Departure, signal: AbortSignal): Promise<void> {
    const { domain } = departure;
    if (domain === null) throw new TypeError('nothing says how the domain is to set out');
    this.#departure = { ...departure, domain };
    await this.#migrate();
    // libvirt is busy with the destination for longer than that takes.
    const { 'downtime-limit': limitMs } = await this.monitor.execute('query-migrate-parameters', {}, { signal });
    this.#previousDowntimeMs = limitMs ?? null;
    await this.allowDowntime(departure.downtimeLimitMs, signal);
    if (departure.isInFiles) await this.#leaveMemoryOut(signal);
    await this.#tunnel?.reached;
  }

  get hasSetOut(): boolean {
    return this.#migration !== null;
  }

  async setOut(signal: AbortSignal): Promise<void> {
    const { domain, isInFiles } = this.#departure!;
    if (isInFiles) return this.#tunnel!.depart();
    // It may stop the guest as soon as it is let: that it has begun need not be waited for.
    if (!domain.postcopy) await this.#unlessEnded((over) => this.#untilBegun(over), signal);
  }

  /** libvirt has begun, so that nobody else may save or move the guest: what QEMU leaves out, it leaves out of this. */
  async #leaveMemoryOut(signal: AbortSignal): Promise<void> {
    await this.#unlessEnded((over) => untilAborted(this.#tunnel!.ready, over), signal);
    await this.monitor.execute('migrate-set-capabilities', leavingOut(true), { signal });
  }

  async #migrate(): Promise<void> {
    const { domain, streamPath, isInFiles } = this.#departure!;
    const xmlPath = domain.xml === null ? null : join(domain.directory, 'destination.xml');
    if (xmlPath !== null) await writeFile(xmlPath, domain.xml!, { mode: 0o600 });
    const migration = migrateDomain({
      ...this.#address,
      ...domain,
      postcopy: domain.postcopy && !isInFiles,
      destinationUri: await this.#destinationUri(domain),
      socketPath: streamPath,
      xmlPath,
    });
    this.#migration = migration;
    void this.#tunnel?.lost.then(() => {
      if (!this.#isHeld) this.#tunnel?.cut();
    });
  }

  /** @throws also when virsh ends meanwhile */
  async #unlessEnded(wait: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    try {
      await Promise.race([this.#given(), wait(AbortSignal.any([signal, over.signal]))]);
    } finally {
      over.abort();
    }
  }

  /** Rejects when virsh ends. */
  async #given(): Promise<never> {
    await this.#migration!.ended;
    throw new LibvirtError('VMMIG_LIBVIRT_MIGRATE', `libvirt moved ${this.#address.domain} without its stream`);
  }

  async allowDowntime(limitMs: number, signal: AbortSignal): Promise<void> {
    await this.#virsh.run(['migrate-setmaxdowntime', '--domain', this.#address.domain, '--downtime', String(limitMs)], {
      signal,
    });
  }

  /** QEMU has begun by itself: libvirt lets it from the start, or not at all. */
  async throttle(): Promise<void> {}

  /** What libvirt does from then on depends on the destination. */
  async sent(): Promise<MigrationState | null> {
    return null;
  }

  async letGo(): Promise<void> {
    const ends = [this.#given(), this.lost(), this.#lostHere()];
    for (const end of ends) end.catch(() => {});
    await Promise.race([this.#tunnel!.asked, ...ends]);
  }

  async lost(): Promise<never> {
    await (this.#tunnel?.lost ?? new Promise(() => {}));
    throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', 'the connection of libvirt on both hosts was lost');
  }

  /** virsh waits for the destination, and does not notice. */
  async #lostHere(): Promise<never> {
    await this.monitor.lost;
    throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', 'libvirt here has hung up');
  }

  async explained(failure: Error): Promise<Error> {
    const migration = this.#migration;
    const isConsequence = 'code' in failure && consequences.has(failure.code);
    if (migration === null || !isConsequence) return failure;
    const reason = migration.ended.then(
      () => failure,
      (thrown) => thrown as Error,
    );
    return await Promise.race([reason, delay(lastWordsMs, failure, { ref: false })]);
  }

  hold(): void {
    writeFileSync(this.#heldPath(), '', { mode: 0o600 });
    this.#isHeld = true;
  }

  async undo(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    this.#isHeld = false;
    const { domain } = this.#address;
    const migration = this.#migration;
    // What libvirt asks the destination then has one answer.
    void this.#tunnel?.asked.then(() => this.#tunnel?.cut());
    if (this.#tunnel?.isHolding) this.#tunnel.cut();
    if (migration !== null && !migration.hasEnded && !this.#tunnel?.isAsked && !this.#tunnel?.isHolding) {
      await this.#virsh.run(['domjobabort', '--domain', domain], { signal }).catch(ignored);
      if (!(await endsWithin(migration, unwindTimeoutMs))) this.#tunnel?.cut();
    }
    if (migration !== null) {
      if (!(await endsWithin(migration, cutTimeoutMs))) migration.kill();
      await endsWithin(migration, cutTimeoutMs);
    }
    if (wasRunning) await this.#letRun(signal);
    if (this.#previousDowntimeMs !== null)
      await this.monitor
        .execute('migrate-set-parameters', { 'downtime-limit': this.#previousDowntimeMs }, { signal })
        .catch(ignored);
    await this.#leaveNothingOut(signal);
    await this.#forget();
  }

  async release(signal: AbortSignal): Promise<void> {
    const { domain } = this.#address;
    const migration = this.#migration;
    const uuid = this.#description?.uuid;
    if (uuid !== undefined) this.#tunnel?.confirm({ name: this.#departure?.domain.destinationName ?? domain, uuid });
    if (migration !== null && !(await endsWithin(migration, releaseTimeoutMs))) migration.kill();
    const found = await domainState(this.#virsh, domain, { signal });
    if (found?.state === 'running')
      throw new HypervisorError('VMMIG_PROCESS_END', `${domain} runs here: it is not ended`);
    // libvirt was not there to hear that the guest runs on the destination.
    if (isActive(found)) {
      await this.#virsh.run(['destroy', '--domain', domain], { signal });
      if (this.#departure?.domain.undefineSource) await this.#virsh.run(['undefine', '--domain', domain], { signal });
    }
    await this.#forget();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const migration = this.#migration;
    if (migration !== null && !(await endsWithin(migration, releaseTimeoutMs)) && this.#isHeld) migration.kill();
    await this.#forget();
    await this.monitor.close();
    await this.#virsh[Symbol.asyncDispose]();
  }

  async #destinationUri({ to, directory, postcopy }: DomainDeparture): Promise<string> {
    if ('uri' in to) return to.uri;
    const { isInFiles } = this.#departure!;
    const path = join(directory, 'libvirt');
    const switching = postcopy ? { isInFiles } : null;
    this.#tunnel = await TunnelEntrance.open(path, { ...to, switching }, (client) => {
      const guarded = { heldPath: this.#heldPath(), address: this.#address, isInFiles };
      this.#guard = VirshGuard.start(guarded, this.#migration!.pid, client);
    });
    return `qemu+unix:///system?socket=${encodeURIComponent(path)}`;
  }

  /** Before that, what QEMU tells is about an earlier migration. */
  async #untilBegun(signal: AbortSignal): Promise<void> {
    while ((await migrationState(this.monitor, { signal })).final) await delay(pollMs, undefined, { signal });
  }

  /** What cannot be told to QEMU now is left to the guard. */
  async #leaveNothingOut(signal: AbortSignal): Promise<void> {
    await this.monitor.execute('migrate-set-capabilities', leavingOut(false), { signal }).catch(async (thrown) => {
      ignored(thrown);
      (await this.#guard)?.alarm();
    });
  }

  /** A daemon that is not there may come again, and then does by itself what it had begun. */
  async #letRun(signal: AbortSignal): Promise<void> {
    const { domain } = this.#address;
    for (;;) {
      try {
        const found = await domainState(this.#virsh, domain, { signal });
        if (found?.state === 'running') return;
        if (!isActive(found)) throw new HypervisorError('VMMIG_RESUME', `${domain} does not run here any more`);
        if (found?.state === 'paused') await this.#virsh.run(['resume', '--domain', domain], { signal });
      } catch (cause) {
        if (signal.aborted || !(cause instanceof LibvirtError)) throw cause;
      }
      await delay(pollMs, undefined, { signal });
    }
  }

  #heldPath(): string {
    return join(this.#departure!.domain.directory, heldFile);
  }

  async #forget(): Promise<void> {
    if (this.#departure !== null) rmSync(this.#heldPath(), { force: true });
    const guard = await this.#guard;
    guard?.[Symbol.dispose]();
    await this.#tunnel?.[Symbol.asyncDispose]();
    this.#tunnel = null;
    this.#migration = null;
  }
}

async function endsWithin({ ended }: DomainMigration, timeoutMs: number): Promise<boolean> {
  const settled = ended.then(
    () => true,
    () => true,
  );
  return await Promise.race([settled, delay(timeoutMs, false, { ref: false })]);
}

/** What libvirt will not do at this moment, it need not. */
function ignored(thrown: unknown): void {
  if (!(thrown instanceof Error)) throw thrown;
}
