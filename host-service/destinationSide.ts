/**
 * The destination host's part in one migration. Until `commit`, whatever ends the session ends the QEMU that was
 * started here; from then on the guest is this QEMU's.
 */
import { mkdir, rm } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type DiskReader, openDisk } from '../disk/index.js';
import {
  acceptMigration,
  type DestinationGuest,
  type PreviousSettings,
  type ProcessId,
  parseRamBlocks,
  type RecoveryGuard,
  startDestination,
  untilRecoverable,
  waitUntilLoaded,
} from '../hypervisor/index.js';
import type { MigrationCapability, QmpClient } from '../qmp/index.js';
import { DestinationRelay } from '../relay/destination/destinationRelay.js';
import type { SwitchDestination } from '../relay/destination/switchDestination.js';
import type { RelayError } from '../relay/errors.js';
import { CallerPatience } from './callerSilence.js';
import { removeLedger } from './commit/index.js';
import { type ArrivedGuest, arrivedDirectly } from './guest/arrivedGuest.js';
import { DomainArrival } from './guest/domainArrival.js';
import { bootId } from './newLedger.js';
import type { DestinationSample, Params, Pulled, Results, StartedProcess, TakeOver } from './protocol.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';
import { DestinationSwitch } from './switching/destinationSwitch.js';
import { hintLimitBytes } from './switching/guestMemory.js';
import { pidFile } from './switching/leftGuest.js';
import { askDestination, concludeDestination, type OrphanedMigration, pulledElsewhere } from './switching/orphans.js';
import { AdoptedGuest, awaitAnotherSource, findAtWork, findRemains, type Remains } from './switching/takeover.js';
import { Yielding } from './switching/yielding.js';
import { DestinationTeleport } from './teleporting/destinationTeleport.js';
import { untilAborted } from './untilAborted.js';

const sampleIntervalMs = 200;
const smallPageBytes = 4096;
/** For QEMU to say what was wrong with the stream. */
const lastWordsMs = 1000;
const restoreTimeoutMs = 10_000;
/** Where QEMU listens for another stream when the one that it had has broken. */
const recoverySocket = 'recover';
/** QEMU may not have noticed yet. */
const recoverableTimeoutMs = 30_000;

export class DestinationSide implements AsyncDisposable {
  readonly #notify: (sample: DestinationSample) => void;
  #directory: string | null = null;
  #guest: DestinationGuest | null = null;
  /** Of a guest that libvirt brings. */
  #domain: DomainArrival | null = null;
  #streamPath = '';
  #previous: PreviousSettings | null = null;
  #relay: DestinationRelay | SwitchDestination | null = null;
  #switch: DestinationSwitch | null = null;
  #switching: Promise<DestinationSwitch> | null = null;
  /** All of the guest's memory is here. */
  #whole: Promise<Pulled> | null = null;
  readonly #disks: DiskReader[] = [];
  #timer: NodeJS.Timeout | null = null;
  #teleporting: Promise<DestinationTeleport | null> = Promise.resolve(null);
  /** Kept on watch where this service ends before the guest has all of its memory. */
  #recoveryGuard: RecoveryGuard | null = null;
  /** Of a QEMU that another service started. */
  #adopting: Promise<void> = Promise.resolve();
  readonly #yielding = new Yielding();
  readonly #patience = new CallerPatience();
  #starting: Promise<StartedProcess> | null = null;
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
    this.#guest = await startDestination({
      argv: params.argv,
      cwd: params.cwd,
      logPath: join(params.stateDir, `${params.vm}.log`),
      pidPath: join(directory, pidFile),
      qmpPath: params.qmpPath,
      signal,
    });
    const guest = this.#guest;
    const teleport = await this.#teleporting;
    await teleport?.started(guest);
    void guest.qmp.closed.then((error) => teleport?.lostGuest(error));
    if (params.postcopy) this.#yielding.add(this.#guest.pid);
    const settings = params.postcopy ? { capabilities: { 'postcopy-ram': true, 'return-path': true } } : {};
    this.#previous = await acceptMigration(this.#guest, `unix:${join(directory, 'incoming')}`, { settings, signal });
    const { disks } = params;
    const pageSizes = params.postcopy ? await largePages(this.#guest.qmp) : new Map<string, number>();
    if (params.postcopy) this.#guardRecovery(this.#guest, directory);
    await (await this.#switching)?.started(this.#guest, {
      disks,
      pageSizes: Object.fromEntries(pageSizes),
      capabilities: { ...this.#previous.settings.capabilities },
    });
    await this.#openDisks(disks);
    this.#listening(pageSizes);
    return { pid: this.#guest.pid, startTime: this.#guest.startTime, bootId: await bootId() };
  }

  /** Opens the disks that a guest will be restored from which libvirt brings. */
  async expect(params: Params<'destination.expect'>, _signal: AbortSignal): Promise<StartedProcess> {
    await this.#openDisks(params.disks);
    await (await this.#switching)?.started(null, null);
    this.#domain!.listens().then(
      () => this.#listening(new Map(Object.entries(params.pageSizes))),
      () => {},
    );
    return { pid: 0, startTime: 0, bootId: await bootId() };
  }

  /** Listens for the source relay. What comes before QEMU is there waits for it. */
  async listen(params: Params<'destination.listen'>): Promise<Results['destination.listen']> {
    this.#streamPath = join(params.runDir, params.migrationId, 'incoming');
    const { libvirt } = params.guest;
    if (params.switching === null) this.#teleporting = this.#startTeleport(params);
    if (libvirt !== undefined) await this.#listenForLibvirt(params, libvirt);
    const relay = params.switching === null ? await this.#listen(params) : await this.#listenToSwitch(params);
    this.#startSampling(relay);
    return { port: relay.port, tunnelPort: this.#domain?.tunnelPort ?? null };
  }

  async #startTeleport(params: Params<'destination.listen'>): Promise<DestinationTeleport> {
    this.#directory = join(params.runDir, params.migrationId);
    return await DestinationTeleport.start({
      ...params,
      arrived: () => this.#arrived(),
      status: () => this.#relay?.state ?? {},
    });
  }

  async #arrived(): Promise<ArrivedGuest | null> {
    await this.#starting?.catch(() => {});
    if (this.#domain !== null) return this.#domain.arrived(() => (this.#relay as DestinationRelay).handOver());
    return this.#guest === null ? null : arrivedDirectly(this.#guest);
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
      const { counters, pendingRestores } = relay.state;
      const { missingPages = null, faults = null } = this.#switch?.relay.state ?? {};
      this.#notify({ counters, pendingRestores, missingPages, faults });
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
    await this.#guest?.qmp.close();
    this.#recoveryGuard?.alarm();
  }

  #guardRecovery(guest: DestinationGuest, directory: string): void {
    this.#recoveryGuard = guest.guardRecovery({
      decisionPath: join(directory, 'decision-destination'),
      socketPath: join(directory, recoverySocket),
    });
  }

  /** Takes the place of a service that died after the guest had begun to run here. */
  async takeOver(
    { runDir, migrationId, isSourceNew }: Params<'destination.takeOver'>,
    signal: AbortSignal,
  ): Promise<TakeOver> {
    const atWork = await findAtWork(runDir, migrationId);
    if (atWork !== null && (atWork.awaitsSource || isSourceNew)) {
      const port = atWork.awaitsSource ? atWork.port : await awaitAnotherSource(runDir, migrationId);
      return { state: 'waiting', port, wasAtWork: true };
    }
    if (atWork !== null) return { state: 'atWork' };
    const { ledger, process, link, needs } = await findRemains(runDir, migrationId);
    const directory = join(runDir, migrationId);
    const socketPath = join(directory, recoverySocket);
    const { qmpPath } = ledger.guest;
    const timeoutMs = recoverableTimeoutMs;
    if ((await untilRecoverable({ process, qmpPath, socketPath, timeoutMs, signal })) === 'complete') {
      this.#guest = await AdoptedGuest.adopt(process, qmpPath);
      await this.#guest.qmp.execute('migrate-set-capabilities', capabilitiesOf(needs));
      await removeLedger(runDir, migrationId, 'destination');
      await rm(directory, { recursive: true, force: true });
      return { state: 'complete' };
    }
    this.#directory = directory;
    await this.#openDisks(needs.disks);
    const { ports, reconnectTimeoutMs } = needs;
    this.#switch = await DestinationSwitch.takeOver(
      {
        ...{ runDir, migrationId },
        peer: ledger.peer,
        guestAddress: ledger.guest,
        guest: () => this.#arrived(),
        relay: {
          credentials: { migrationId, key: Buffer.from(link.key, 'base64') },
          listen: ports === null ? {} : { ports },
          qemuSocketPath: socketPath,
          qemuListens: Promise.resolve(new Map(Object.entries(needs.pageSizes))),
          disks: this.#disks,
          heldLimitBytes: 0,
          reconnectTimeoutMs,
          takesOver: true,
        },
        pulled: () => this.#whole!,
        cutOff: () => this.#cutOff(),
      },
      async () => {
        this.#adopting = this.#adopt(process, ledger.guest.qmpPath, directory, needs);
        await this.#adopting;
      },
    );
    this.#whole = this.#finishPull(this.#switch.relay);
    this.#whole.catch(() => {});
    this.#startSampling(this.#switch.relay);
    return { state: 'waiting', port: this.#switch.relay.port, wasAtWork: false };
  }

  async #listen(params: Params<'destination.listen'>): Promise<DestinationRelay> {
    const holdsDeviceState = this.#domain !== null;
    const teleport = await this.#teleporting;
    const { reconnectTimeoutMs } = params;
    this.#patience.extend(reconnectTimeoutMs);
    const relay = await DestinationRelay.start({
      ...this.#relayOptions(params),
      holdsDeviceState,
      reconnectTimeoutMs,
    });
    // Nobody may be left to ask for it when the network is gone, and without the link this QEMU is of no use.
    relay.finished.catch(async (error) => {
      this.#patience.end();
      await delay(lastWordsMs);
      await teleport?.failed(error);
    });
    return relay;
  }

  async #listenToSwitch(params: Params<'destination.listen'>): Promise<SwitchDestination> {
    const { guest, peer } = params;
    const { reconnectTimeoutMs } = params.switching!;
    this.#switching = DestinationSwitch.start({
      runDir: params.runDir,
      migrationId: params.migrationId,
      peer,
      guestAddress: guest,
      guest: () => this.#arrived(),
      relay: {
        ...this.#relayOptions(params),
        reconnectTimeoutMs,
        heldLimitBytes: heldLimitBytes(),
        mayPreempt: this.#domain !== null,
      },
      pulled: () => this.#whole!,
      cutOff: () => this.#cutOff(),
      permitted: () => this.#yielding.end(),
    });
    this.#switch = await this.#switching;
    this.#whole = this.#finishPull(this.#switch.relay);
    this.#whole.catch(() => {});
    return this.#switch.relay;
  }

  /** What is done when all of the guest's memory is here, whoever waits for it. */
  async #finishPull(relay: SwitchDestination): Promise<Pulled> {
    await relay.finished;
    await this.#adopting;
    this.#recoveryGuard?.[Symbol.dispose]();
    this.#stopSampling();
    await this.#domain?.concluded();
    await this.#previous?.restore({ signal: AbortSignal.timeout(restoreTimeoutMs) });
    const { counters, bytesOnWire, faults, hasTakenOver } = relay.state;
    return { counters, bytesOnWire, faults, hasTakenOver };
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

  /** QEMU has a stream again, and so can be spoken to. */
  async #adopt(process: ProcessId, qmpPath: string, directory: string, needs: Remains['needs']): Promise<void> {
    await rm(join(directory, recoverySocket), { force: true });
    const guest = await AdoptedGuest.adopt(process, qmpPath);
    this.#guest = guest;
    this.#guardRecovery(guest, directory);
    const restore = async () => {
      await guest.qmp.execute('migrate-set-capabilities', capabilitiesOf(needs));
    };
    this.#previous = { settings: { capabilities: needs.capabilities }, restore };
  }

  /** Resolves when the guest runs here. */
  async switched(signal: AbortSignal): Promise<Results['destination.switched']> {
    return await this.#switch!.switched(signal);
  }

  /** Resolves when all of the guest's memory is here. */
  async pulled(migration: OrphanedMigration, signal: AbortSignal): Promise<Results['destination.pulled']> {
    return await (this.#whole ?? pulledElsewhere(migration, 'destination', signal));
  }

  /** Does the guest run here? If not, it never will. */
  async ask({ bootId, ...migration }: Params<'destination.ask'>): Promise<Results['destination.ask']> {
    const commitPoint = this.#switch ?? (await this.#teleporting.catch(() => null));
    return { state: await (commitPoint?.ask() ?? askDestination(migration, bootId)) };
  }

  /** Resolves when this service is of no use to the guest any more. */
  async settled(): Promise<void> {
    await this.#switch?.settled();
    await this.#whole?.catch(() => {});
  }

  /** Resolves when QEMU has loaded everything, and it was found equal to the source's. */
  async finished(signal: AbortSignal): Promise<Results['destination.finished']> {
    if (this.#domain !== null) return await this.#compared(signal);
    const loaded = waitUntilLoaded(this.#guest!, { signal });
    loaded.catch(() => {});
    await this.#relay!.finished.catch((thrown: RelayError) => {
      // QEMU's own reason is the better one when it hung up on the relay.
      if (thrown.code === 'VMMIG_RELAY_QEMU') return loaded;
      throw thrown;
    });
    await loaded;
    this.#stopSampling();
    await (await this.#teleporting)?.loaded();
    const { counters, bytesOnWire } = this.#relay!.state;
    return { counters, bytesOnWire };
  }

  /** libvirt's QEMU has all of the guest's memory, equal to the source's. What it needs to run it is kept for `commit`. */
  async #compared(signal: AbortSignal): Promise<Results['destination.finished']> {
    await untilAborted(this.#relay!.finished, signal);
    this.#stopSampling();
    await (await this.#teleporting)?.loaded();
    const { counters, bytesOnWire } = this.#relay!.state;
    return { counters, bytesOnWire };
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
    await this.#previous?.restore({ signal: AbortSignal.timeout(restoreTimeoutMs) }).catch(() => {});
    return { resumedAtMs };
  }

  /** The source has let go of the guest that runs here. */
  async conclude(migration: OrphanedMigration): Promise<null> {
    const teleport = await this.#teleporting;
    if (teleport === null) await concludeDestination(migration);
    else teleport.conclude();
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
      // Not one that was let run.
      () => this.#guest?.[Symbol.asyncDispose](),
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

function capabilitiesOf({ capabilities }: Remains['needs']): {
  capabilities: { capability: MigrationCapability; state: boolean }[];
} {
  const list = Object.entries(capabilities).map(([name, state]) => ({
    capability: name as MigrationCapability,
    state,
  }));
  return { capabilities: list };
}

/** Of those RAM blocks that lie in huge pages. */
async function largePages(qmp: QmpClient): Promise<ReadonlyMap<string, number>> {
  const text = await qmp.execute('human-monitor-command', { 'command-line': 'info ramblock' });
  const large = parseRamBlocks(text).filter(({ pageSizeBytes }) => pageSizeBytes !== smallPageBytes);
  return new Map(large.map(({ name, pageSizeBytes }) => [name, pageSizeBytes]));
}
