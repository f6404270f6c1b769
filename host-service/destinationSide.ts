/**
 * The destination host's part in one migration. Until `commit`, whatever ends the session ends the QEMU that was
 * started here; from then on the guest is this QEMU's.
 */
import { mkdir, rm } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { type DiskReader, openDisk } from '../disk/index.js';
import type { DestinationRelay } from '../relay/destination/destinationRelay.js';
import type { SwitchDestination } from '../relay/destination/switchDestination.js';
import { CallerPatience } from './callerSilence.js';
import { DestinationQemu } from './destinationQemu.js';
import { type ArrivedGuest, arrivedDirectly } from './guest/arrivedGuest.js';
import { DomainArrival } from './guest/domainArrival.js';
import { bootId } from './newLedger.js';
import type { DestinationSample, Params, Results, StartedProcess, TakeOver } from './protocol.js';
import { aheadLimitBytes } from './readableMemory.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';
import { DestinationSwitch } from './switching/destinationSwitch.js';
import { type Successor, takeOverDestination } from './switching/destinationTakeOver.js';
import { hintLimitBytes } from './switching/guestMemory.js';
import {
  askDestination,
  asked,
  concludeDestination,
  type OrphanedMigration,
  pulledElsewhere,
} from './switching/orphans.js';
import { keepVigil } from './switching/vigil.js';
import { DestinationTeleport } from './teleporting/destinationTeleport.js';

const sampleIntervalMs = 200;

export class DestinationSide implements AsyncDisposable {
  readonly #notify: (sample: DestinationSample) => void;
  #directory: string | null = null;
  /** Of a guest that this service starts. */
  readonly #qemu = new DestinationQemu();
  /** Of a guest that libvirt brings. */
  #domain: DomainArrival | null = null;
  #streamPath = '';
  #relay: DestinationRelay | SwitchDestination | null = null;
  #switch: DestinationSwitch | null = null;
  #switching: Promise<DestinationSwitch> | null = null;
  readonly #disks: DiskReader[] = [];
  #timer: NodeJS.Timeout | null = null;
  #teleporting: Promise<DestinationTeleport | null> = Promise.resolve(null);
  readonly #patience = new CallerPatience();
  #starting: Promise<StartedProcess> | null = null;
  /** For a guest that another service had brought here, and that has lost memory. */
  #vigil: Promise<void> | null = null;
  #listening!: (pageSizes: ReadonlyMap<string, number>) => void;
  /** The link may be there before QEMU is. With the host page size of its RAM blocks, where it is not the usual one. */
  readonly #qemuListens = new Promise<ReadonlyMap<string, number>>((resolve) => {
    this.#listening = resolve;
  });

  constructor(notify: (sample: DestinationSample) => void) {
    this.#notify = notify;
  }

  /** How long the caller may be silent. */
  get silenceLimitMs(): number {
    return this.#patience.limitMs;
  }

  /** Starts QEMU, which waits for the guest, and opens the disks it will be restored from. */
  async start(params: Params<'destination.start'>, signal: AbortSignal): Promise<StartedProcess> {
    this.#starting = this.#start(params, signal);
    return await this.#starting;
  }

  async #start(params: Params<'destination.start'>, signal: AbortSignal): Promise<StartedProcess> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await mkdir(params.stateDir, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    const guest = await this.#qemu.start(params, directory, signal);
    const teleport = await this.#teleporting;
    await teleport?.started(guest);
    const switching = await this.#switching;
    void guest.qmp.closed.then((error) => (teleport ?? switching)?.lostGuest(error));
    const pageSizes = await this.#qemu.accept(params.postcopy, directory, signal);
    const { disks } = params;
    const { capabilities } = this.#qemu;
    const needs = { disks, pageSizes: Object.fromEntries(pageSizes), capabilities };
    await switching?.started(guest, needs);
    await this.#openDisks(disks);
    this.#listening(pageSizes);
    return { pid: guest.pid, startTime: guest.startTime, bootId: await bootId() };
  }

  /** Opens the disks that a guest will be restored from which libvirt brings. */
  async expect(params: Params<'destination.expect'>, _signal: AbortSignal): Promise<StartedProcess> {
    await this.#openDisks(params.disks);
    const switching = await this.#switching;
    await switching?.started(null, null);
    void this.#followDomain(this.#domain!, switching, params);
    return { pid: 0, startTime: 0, bootId: await bootId() };
  }

  async #followDomain(
    domain: DomainArrival,
    switching: DestinationSwitch | null,
    { pageSizes }: Params<'destination.expect'>,
  ): Promise<void> {
    try {
      await domain.listens();
      this.#listening(new Map(Object.entries(pageSizes)));
      if (switching === null) return;
      await domain.gone();
      await switching.lostGuest(new Error('libvirt has the domain no more'));
    } catch {
      // What is waited for there tells why.
    }
  }

  /** Listens for the source relay. What comes before QEMU is there waits for it. */
  async listen(params: Params<'destination.listen'>): Promise<Results['destination.listen']> {
    this.#streamPath = join(params.runDir, params.migrationId, 'incoming');
    const { libvirt } = params.guest;
    this.#patience.extend(params.reconnectTimeoutMs);
    if (params.switching === null) this.#teleporting = this.#startTeleport(params);
    if (libvirt !== undefined) await this.#listenForLibvirt(params, libvirt);
    const relay = params.switching === null ? await this.#listen(params) : await this.#listenToSwitch(params);
    this.#startSampling(relay);
    return { port: relay.port, tunnel: this.#domain?.tunnel ?? null, bootId: await bootId() };
  }

  async #startTeleport(params: Params<'destination.listen'>): Promise<DestinationTeleport> {
    this.#directory = join(params.runDir, params.migrationId);
    return await DestinationTeleport.start({ ...params, arrived: () => this.#arrived() });
  }

  async #arrived(): Promise<ArrivedGuest | null> {
    await this.#starting?.catch(() => {});
    if (this.#domain !== null) return this.#domain.arrived(async () => (await this.#teleporting)!.relay!.handOver());
    const { guest } = this.#qemu;
    return guest === null ? null : arrivedDirectly(guest);
  }

  async #listenForLibvirt(
    params: Params<'destination.listen'>,
    address: NonNullable<Params<'destination.listen'>['guest']['libvirt']>,
  ): Promise<void> {
    const { runDir, migrationId, key, ports, domainUser: user } = params;
    this.#directory = join(runDir, migrationId);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const isSwitch = params.switching !== null;
    const options = { runDir, migrationId, key: Buffer.from(key, 'base64'), ports, isSwitch, user };
    this.#domain = await DomainArrival.prepare(address, options);
    this.#streamPath = this.#domain.streamPath;
  }

  #startSampling(relay: DestinationRelay | SwitchDestination): void {
    this.#relay = relay;
    this.#timer = setInterval(() => {
      const { counters, bytesOnWire, pendingRestores } = relay.state;
      const { missingPages = null, faults = null } = this.#switch?.relay.state ?? {};
      const takenAtMs = performance.now();
      this.#notify({ takenAtMs, counters, bytesOnWire, pendingRestores, missingPages, faults });
    }, sampleIntervalMs);
  }

  async #openDisks(disks: Params<'destination.start'>['disks']): Promise<void> {
    // What cannot be read costs resends, not the migration.
    const options = { lazy: true, ...(this.#directory === null ? {} : { runDirectory: this.#directory }) };
    for (const disk of disks) this.#disks.push(await openDisk(disk, options));
  }

  /** The relay has given up, and the guest may need another one. */
  async #cutOff(): Promise<void> {
    this.#stopSampling();
    await this.#qemu.leave();
  }

  /** Takes the place of a service that died after the guest had begun to run here. */
  async takeOver(params: Params<'destination.takeOver'>, signal: AbortSignal): Promise<TakeOver> {
    const successor: Successor = {
      qemu: this.#qemu,
      openDisks: async (disks, directory) => {
        this.#directory = directory;
        await this.#openDisks(disks);
        return this.#disks;
      },
      options: this.#switchOptions(),
      taken: (own) => {
        this.#switch = own;
        this.#startSampling(own.relay);
      },
    };
    return await takeOverDestination(params, successor, signal);
  }

  async #listen(params: Params<'destination.listen'>): Promise<DestinationRelay> {
    const { reconnectTimeoutMs } = params;
    const teleport = (await this.#teleporting)!;
    const holdsDeviceState = this.#domain !== null;
    const heldLimitBytes = aheadLimitBytes;
    const options = { ...this.#relayOptions(params), heldLimitBytes, holdsDeviceState, reconnectTimeoutMs };
    return await teleport.listen(options, () => this.#patience.end());
  }

  async #listenToSwitch(params: Params<'destination.listen'>): Promise<SwitchDestination> {
    const { guest, peer } = params;
    this.#switching = DestinationSwitch.start({
      runDir: params.runDir,
      migrationId: params.migrationId,
      peer,
      guestAddress: guest,
      ...this.#switchOptions(),
      relay: {
        ...this.#relayOptions(params),
        reconnectTimeoutMs: params.switching!.reconnectTimeoutMs,
        reconnectTimeoutBeforeMs: params.reconnectTimeoutMs,
        heldLimitBytes: heldLimitBytes(),
        mayPreempt: this.#domain !== null,
      },
      permitted: () => this.#qemu.permitted(),
    });
    this.#switch = await this.#switching;
    this.#switch.relay.finished.catch(() => this.#patience.end());
    return this.#switch.relay;
  }

  /** What this service does with a guest that is switched to this host. */
  #switchOptions() {
    return {
      guest: () => this.#arrived(),
      cutOff: () => this.#cutOff(),
      concluded: async () => {
        this.#stopSampling();
        await this.#domain?.concluded();
        await this.#qemu.restore();
      },
    };
  }

  #relayOptions({ migrationId, key, ports }: Params<'destination.listen'>) {
    return {
      credentials: { migrationId, key: Buffer.from(key, 'base64') },
      listen: ports === null ? {} : { ports },
      qemuSocketPath: this.#streamPath,
      qemuListens: this.#qemuListens,
      disks: this.#disks,
    };
  }

  /** Resolves when the guest runs here. */
  async switched(signal: AbortSignal): Promise<Results['destination.switched']> {
    return await this.#switch!.switched(signal);
  }

  /** Resolves when all of the guest's memory is here. */
  async pulled(migration: OrphanedMigration, signal: AbortSignal): Promise<Results['destination.pulled']> {
    return await (this.#switch?.whole ?? pulledElsewhere(migration, 'destination', signal));
  }

  /** Does the guest run here? If not, it never will. */
  async ask({ bootId, ...migration }: Params<'destination.ask'>): Promise<Results['destination.ask']> {
    const commitPoint = this.#switch ?? (await this.#teleporting.catch(() => null));
    return commitPoint === null
      ? await askDestination(migration, bootId)
      : await asked(migration, await commitPoint.ask());
  }

  /** Resolves when this service is of no use to the guest any more. */
  async settled(): Promise<void> {
    await this.#switch?.settled();
    await (await this.#teleporting.catch(() => null))?.settled();
    await this.#vigil;
  }

  /** Resolves when QEMU has loaded everything, and it was found equal to the source's. */
  async finished(signal: AbortSignal): Promise<Results['destination.finished']> {
    const teleport = (await this.#teleporting)!;
    const loaded = await teleport.finished(this.#domain === null ? this.#qemu.guest! : null, signal);
    this.#stopSampling();
    return loaded;
  }

  /**
   * Lets the guest run here. A QEMU that refuses is ended before that is told; one that has accepted keeps the guest,
   * whatever becomes of it; about one that did not answer nothing is known, and it is left as it is.
   */
  async commit(): Promise<Results['destination.commit']> {
    const teleport = await this.#teleporting;
    if (teleport === null) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no loaded guest to let run');
    const resumedAtMs = await teleport.commit();
    // Not before: the guest stands still until here.
    await this.#qemu.restore().catch(() => {});
    return { resumedAtMs };
  }

  /** The source has let go of the guest that runs here, or has lost what it had of it. */
  async conclude(migration: OrphanedMigration): Promise<null> {
    const own = this.#switch ?? (await this.#teleporting);
    if (own !== null) own.conclude();
    else if (!(await concludeDestination(migration))) this.#vigil ??= keepVigil(migration).catch(() => {});
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopSampling();
    await this.#starting?.catch(() => {});
    const teleport = await this.#teleporting.catch(() => null);
    await releaseAll([
      () => this.#switch?.[Symbol.asyncDispose](),
      () => teleport?.[Symbol.asyncDispose](),
      () => this.#relay?.[Symbol.asyncDispose](),
      () => this.#qemu[Symbol.asyncDispose](),
      () => this.#domain?.[Symbol.asyncDispose](),
      ...this.#disks.splice(0).map((disk) => () => disk[Symbol.asyncDispose]()),
      () =>
        this.#directory &&
        !(this.#switch ?? teleport)?.isInDoubt &&
        rm(this.#directory, { recursive: true, force: true }),
    ]);
  }

  #stopSampling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}

/** Memory is what a destination is about to need. */
function heldLimitBytes(): number {
  return Math.min(hintLimitBytes, Math.floor(freemem() / 4));
}
