/**
 * The source host's part in one migration. Before the commit point, whatever ends the session makes the guest go on here;
 * from there on it stays as it is, because by then it may run on the destination.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { matchDisks } from '../disk/match.js';
import type { CacheRuns } from '../guest-agent/cacheMap.js';
import type { ScanResult } from '../guest-agent/client.js';
import type { GuestAgent } from '../guest-agent/guestAgent.js';
import {
  type GuestInspection,
  HypervisorError,
  type MigrationState,
  migrationState,
  type QmpMonitor,
  touchedPages,
} from '../hypervisor/index.js';
import { SourceRelay, type SourceRelayOptions } from '../relay/source/sourceRelay.js';
import type { SwitchSource } from '../relay/source/switchSource.js';
import { CallerPatience } from './callerSilence.js';
import { eventTimeMs } from './clock.js';
import { readLedger, type SourceState } from './commit/index.js';
import { findAgent } from './findAgent.js';
import { DirectSource } from './guest/directSource.js';
import { removeStreamPath } from './guest/libvirtPaths.js';
import { LibvirtSource } from './guest/libvirtSource.js';
import type { DomainDeparture, SourceGuest } from './guest/sourceGuest.js';
import type { GuestAddress, Params, Results, ScanSummary, SourceSample } from './protocol.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';
import { expectedUse } from './switching/expectedUse.js';
import { type OpenMemory, openGuestMemory } from './switching/guestMemory.js';
import { findSourceRemains } from './switching/keptMemory.js';
import { hasEnded } from './switching/leftGuest.js';
import { type OrphanedMigration, postToSource, pulledElsewhere } from './switching/orphans.js';
import { SourceSwitch } from './switching/sourceSwitch.js';
import { findSourceAtWork, reconnectSource } from './switching/takeover.js';
import { SourceTeleport } from './teleporting/sourceTeleport.js';
import { untilAborted } from './untilAborted.js';

type DomainParams = NonNullable<Params<'source.start'>['domain']>;

const sampleIntervalMs = 50;
/** The longest that QEMU takes. */
const finishDowntimeLimitMs = 2_000_000;
const undoTimeoutMs = 30_000;
const agentPatienceMs = 2_000;
/** What was brought into the guest also leaves by itself: the guest is not kept for it. */
const agentRestMs = 300;

export class SourceSide implements AsyncDisposable {
  readonly #notify: (sample: SourceSample) => void;
  #guest: SourceGuest | null = null;
  #isDomain = false;
  #agent: GuestAgent | null = null;
  #inspection: GuestInspection | null = null;
  #scan: ScanResult | null = null;
  #relay: SourceRelay | SwitchSource | null = null;
  #switch: SourceSwitch | null = null;
  #teleport: SourceTeleport | null = null;
  /** Of a switch, where the guest's memory is kept in files: QEMU has next to nothing to copy. */
  #memory: OpenMemory | null = null;
  #hasSetOut = false;
  #diskIndexes: readonly number[] = [];
  #directory: string | null = null;
  #migrationId = '';
  /** Where the relay listens for QEMU. */
  #streamPath = '';
  #tellIterating!: () => void;
  /** QEMU's stream may be read: it will not stop the guest by itself. */
  readonly #isIterating = new Promise<void>((resolve) => {
    this.#tellIterating = resolve;
  });
  #key: Buffer | null = null;
  readonly #patience = new CallerPatience();
  #stopped: Promise<number> | null = null;
  #isStopped = false;
  /** It runs nowhere: there is nothing to find it by any more. */
  #guestHasEnded = false;
  #touchedPages: number | null = null;
  #timer: NodeJS.Timeout | null = null;
  #migration: MigrationState | null = null;
  #scanning: Promise<unknown> = Promise.resolve();

  constructor(notify: (sample: SourceSample) => void) {
    this.#notify = notify;
  }

  async inspect(guest: Params<'source.inspect'>, signal: AbortSignal): Promise<Results['source.inspect']> {
    const own = await this.#open(guest, signal);
    const inspection = await own.inspect(signal);
    const domain = await own.inspectForLibvirt(signal);
    this.#inspection = inspection;
    if (guest.noAgent) return { inspection, domain, agent: null };
    const services = await own.inspectServices(signal);
    const { agent, search } = await findAgent(inspection.agentPath, services, (path) => own.openQga(path), signal);
    this.#agent = agent;
    return { inspection, domain, agent: search };
  }

  /** Asks the agent for its map; a relay that is running uses it from the next page on. */
  async scan({ mode }: Params<'source.scan'>, signal: AbortSignal): Promise<ScanSummary> {
    if (this.#agent === null) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no agent to ask');
    const scanning = this.#agent.scan({ mode, signal });
    this.#scanning = scanning;
    const scan = await scanning;
    this.#scan = scan;
    this.#useMap();
    return {
      via: this.#agent.via,
      scanMs: scan.scanMs,
      pages: scan.pages,
      runs: scan.runs.count,
      disks: scan.disks.map((disk) => ({ ...disk, pages: pagesOn(scan.runs, disk.index) })),
      skipped: scan.skipped,
    };
  }

  /** How long the caller may be silent. */
  get silenceLimitMs(): number {
    return this.#patience.limitMs;
  }

  /** Listens for QEMU, whose stream waits until the relays have met. */
  async listen(params: Params<'source.listen'>): Promise<null> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#diskIndexes = params.diskIndexes;
    this.#migrationId = params.migrationId;
    if (params.switching === null) this.#patience.extend(params.reconnectTimeoutMs);
    this.#key = Buffer.from(params.key, 'base64');
    this.#streamPath = await this.#guest!.streamPath(params.migrationId, directory);
    if (params.switching === null) {
      this.#teleport = await this.#startTeleport(params);
      this.#relay = await SourceRelay.listen({
        ...relayOptions(params, this.#streamPath),
        answersQemu: this.#isDomain,
      });
      this.#relay.finished.catch(() => this.#patience.end());
    } else this.#relay = (await this.#startSwitch(params)).relay;
    this.#useMap();
    return null;
  }

  /** What the destination cannot read is not referred to from now on. */
  skipDisks({ indexes }: Params<'source.skipDisks'>): null {
    this.#diskIndexes = this.#diskIndexes.map((index) => (indexes.includes(index) ? -1 : index));
    this.#useMap();
    return null;
  }

  /** Meets the destination relay, and lets QEMU's stream in once there is a map of what need not be sent. */
  async connect(endpoint: Params<'source.connect'>): Promise<null> {
    if (this.#relay === null) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no relay to connect');
    await this.#relay.connect(endpoint);
    const answered = this.#scanning.catch(() => {});
    // A switch is not kept waiting by a guest that is too busy for its agent.
    await (this.#switch === null
      ? answered
      : Promise.race([answered, delay(agentPatienceMs, undefined, { ref: false })]));
    if (this.#isDomain) await this.#isIterating;
    this.#relay.begin();
    return null;
  }

  async #startTeleport(params: Params<'source.listen'>): Promise<SourceTeleport> {
    const inspection = this.#inspection!;
    const limits = () => AbortSignal.timeout(undoTimeoutMs);
    return await SourceTeleport.start({
      ...params,
      qemu: inspection.process,
      hold: () => this.#guest!.hold(),
      resumeGuest: () => this.#goOn(inspection.running, limits()),
      endQemu: () => this.#endQemu(limits()),
      status: () => {
        const relay = this.#relay as SourceRelay | null;
        return relay === null ? {} : { ...relay.state, interruptedAtMs: relay.interruptedAtMs };
      },
    });
  }

  async #startSwitch(params: Params<'source.listen'>): Promise<SourceSwitch> {
    const inspection = this.#inspection!;
    const limits = () => AbortSignal.timeout(undoTimeoutMs);
    // libvirt has QEMU prepare for post-copy, which rules out that it leaves memory out of its stream.
    this.#memory = this.#isDomain ? null : await openGuestMemory(this.#monitor, inspection.process);
    const { runDir, migrationId } = params;
    this.#switch = await SourceSwitch.start({
      ...{ params, runDir, migrationId, inspection },
      memory: this.#memory,
      streamPath: this.#streamPath,
      answersQemu: this.#isDomain,
      holdGuest: () => this.#guest!.hold(),
      resumeGuest: () => this.#undo(inspection.running, limits()),
      endQemu: () => this.#endQemu(limits()),
      pulled: () => this.#pulled(),
    });
    void this.#expectUse();
    return this.#switch;
  }

  async #expectUse(signal?: AbortSignal): Promise<void> {
    this.#switch!.relay.expectUse(await expectedUse(this.#monitor, this.#inspection!, signal));
  }

  /** Lets QEMU migrate into the relay. */
  async start(params: Params<'source.start'>, signal: AbortSignal): Promise<null> {
    try {
      await this.#setOut(params, signal);
    } finally {
      this.#tellIterating();
    }
    this.#timer = setInterval(() => void this.#sample(), sampleIntervalMs);
    return null;
  }

  async #setOut({ domain, ...asked }: Params<'source.start'>, signal: AbortSignal): Promise<void> {
    const guest = this.#guest!;
    const isInFiles = this.#memory !== null;
    const { process, memory } = this.#inspection!;
    void touchedPages(process.pid, memory.blocks).then((pages) => {
      this.#touchedPages = pages;
    });
    const leaves = this.#domainDeparture(domain ?? null);
    const departure = { streamPath: this.#streamPath, ...asked, isInFiles, domain: leaves };
    await guest.prepare(departure, signal);
    this.#stopped = guest.monitor.waitFor('STOP').then(eventTimeMs);
    this.#stopped.then(() => this.#guestStopped()).catch(() => {});
    // It is to be stopped as soon as that can be, or is held back by the relay.
    if (this.#switch !== null) this.#tellIterating();
    // QEMU would stop the guest at once where there is next to nothing to copy.
    if (isInFiles) return;
    await guest.setOut(signal);
    this.#switch?.departs(guest.letGo());
  }

  #guestStopped(): void {
    this.#isStopped = true;
    // A guest that stands still is not kept for a caller who may be gone.
    this.#patience.end();
    this.#relay?.guestStopped();
    if (this.#timer !== null) this.#notify(this.#view());
  }

  #domainDeparture(domain: DomainParams | null): DomainDeparture | null {
    if (domain === null) return null;
    const { tunnel, destinationUri, ...more } = domain;
    const credentials = { migrationId: this.#migrationId, key: this.#key! };
    const to = tunnel === null ? { uri: destinationUri! } : { endpoint: tunnel, credentials };
    return { ...more, to, directory: this.#directory!, postcopy: this.#switch !== null };
  }

  /** QEMU goes through the guest's memory as fast as the link takes it. */
  keepUp(): null {
    this.#switch!.relay.keepUp();
    return null;
  }

  async throttle(signal: AbortSignal): Promise<null> {
    await this.#guest!.throttle(signal);
    return null;
  }

  async switchOver(signal: AbortSignal): Promise<null> {
    return await this.allowDowntime({ downtimeLimitMs: finishDowntimeLimitMs }, signal);
  }

  /** From now on QEMU stops the guest as soon as the rest takes no longer than this at memory speed. */
  async allowDowntime({ downtimeLimitMs }: Params<'source.allowDowntime'>, signal: AbortSignal): Promise<null> {
    await Promise.race([this.#agent?.rest(), delay(agentRestMs, undefined, { ref: false })]);
    this.#switch?.permit();
    await this.#guest!.allowDowntime(downtimeLimitMs, signal);
    if (this.#memory !== null && !this.#hasSetOut) {
      this.#hasSetOut = true;
      const { relay } = this.#switch!;
      await relay.warmedUp(signal);
      await Promise.all([relay.endAhead(signal), this.#expectUse(signal)]);
      await this.#guest!.setOut(signal);
    } else this.#switch?.relay.mayStop();
    return null;
  }

  /** Resolves when the guest runs on the destination, and QEMU has ended here. */
  async switched(signal: AbortSignal): Promise<Results['source.switched']> {
    await this.#switch!.switched(signal);
    return { stoppedAtMs: await this.#stopped!, sample: this.#view() };
  }

  /** Resolves when the destination has everything. */
  async pulled(migration: OrphanedMigration, signal: AbortSignal): Promise<Results['source.pulled']> {
    if (this.#switch === null) return await pulledElsewhere(migration, 'source', signal);
    return await untilAborted(this.#pulled(), signal);
  }

  async #pulled(): Promise<{ readonly sample: SourceSample }> {
    await this.#relay!.finished;
    this.#stopSampling();
    return { sample: this.#view() };
  }

  /** To the commit point's source side, which may be in another service. */
  async post(migration: OrphanedMigration, event: 'abandon' | 'release' | 'resume'): Promise<Results['source.post']> {
    const ledger = await readLedger(migration.runDir, migration.migrationId, 'source').catch(() => null);
    const state = await this.#post(migration, event);
    this.#guestHasEnded = state === 'kept' && (await hasEnded(ledger));
    return { state, guestHasEnded: this.#guestHasEnded };
  }

  async #post(migration: OrphanedMigration, event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    const commitPoint = this.#switch ?? this.#teleport;
    if (commitPoint !== null) return await commitPoint.post(event);
    // This is the service that began, and nothing came of it.
    if (this.#guest !== null) return 'resumed';
    return await postToSource(migration, event);
  }

  /** Another relay waits at the destination, or that needs nothing any more. @throws RelayError, ServiceError */
  async reconnect({ runDir, migrationId, endpoint }: Params<'source.reconnect'>): Promise<null> {
    if (this.#switch !== null) await this.#switch.reconnect(endpoint);
    else await reconnectSource(runDir, migrationId, endpoint);
    return null;
  }

  /** Takes the place of a service that died after the guest had gone; the destination is to be met by `reconnect`. */
  async takeOver({ runDir, migrationId }: OrphanedMigration, signal: AbortSignal): Promise<Results['source.takeOver']> {
    const atWork = await findSourceAtWork(runDir, migrationId);
    if (atWork !== null) return atWork;
    const remains = await findSourceRemains(runDir, migrationId);
    this.#memory = remains.memory;
    this.#migrationId = migrationId;
    this.#switch = await SourceSwitch.takeOver(remains, { runDir, pulled: () => this.#pulled() }, signal);
    this.#relay = this.#switch.relay;
    this.#directory = join(runDir, migrationId);
    this.#timer = setInterval(() => void this.#sample(), sampleIntervalMs);
    return 'waiting';
  }

  /** Resolves when this service is of no use to the guest any more. */
  async settled(): Promise<void> {
    await this.#switch?.settled();
  }

  /** Resolves when QEMU has sent everything and the destination's memory was found equal. */
  async finished(signal: AbortSignal): Promise<Results['source.finished']> {
    await untilAborted(this.#relay!.finished, signal);
    this.#migration = (await this.#guest!.sent(signal)) ?? this.#migration;
    await this.#teleport?.complete();
    return { stoppedAtMs: await this.#stopped!, sample: this.#view() };
  }

  /** From here on the guest may be let run on the destination. Refused once it may have been let run here again. */
  async hold({ peerBootId }: Params<'source.hold'>): Promise<null> {
    if (this.#teleport === null)
      throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no complete migration to hold');
    await this.#teleport.hold(peerBootId);
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopSampling();
    await releaseAll([
      () => this.#switch?.[Symbol.asyncDispose](),
      () => this.#teleport?.[Symbol.asyncDispose](),
      () => this.#relay?.[Symbol.asyncDispose](),
      () => this.#agent?.[Symbol.asyncDispose](),
      () => this.#guest?.[Symbol.asyncDispose](),
      () => this.#isDomain && this.#migrationId !== '' && removeStreamPath(this.#migrationId),
      // In doubt, it is what `recover` finds the guest by.
      () =>
        this.#directory &&
        (this.#guestHasEnded || !(this.#switch ?? this.#teleport)?.isInDoubt) &&
        rm(this.#directory, { recursive: true, force: true }),
    ]);
  }

  async #undo(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    this.#stopSampling();
    this.#relay?.abort();
    await this.#guest!.undo(wasRunning, signal);
  }

  /** The guest runs here as before, also where QEMU has not been touched yet. */
  async #goOn(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    if (this.#guest!.hasSetOut) await this.#undo(wasRunning, signal);
    const { running, status } = await this.#monitor.execute('query-status', {}, { signal });
    if (wasRunning && !running)
      throw new HypervisorError('VMMIG_RESUME', `the guest does not run: QEMU calls it "${status}"`);
  }

  async #endQemu(signal: AbortSignal): Promise<void> {
    // Of a switch there is still a lot to tell.
    if (this.#switch === null) this.#stopSampling();
    await this.#agent?.[Symbol.asyncDispose]();
    await this.#guest!.release(signal);
  }

  async #open(guest: GuestAddress, signal: AbortSignal): Promise<SourceGuest> {
    this.#isDomain = guest.libvirt !== undefined;
    this.#guest ??=
      guest.libvirt === undefined ? await DirectSource.open(guest, signal) : new LibvirtSource(guest.libvirt);
    return this.#guest;
  }

  get #monitor(): QmpMonitor {
    return this.#guest!.monitor;
  }

  /** Shows the relay where the agent's disks are on the destination. */
  #useMap(): void {
    if (this.#relay === null || this.#scan === null || this.#inspection === null) return;
    const { disks, runs } = this.#scan;
    const { matched } = matchDisks(disks, this.#inspection.disks);
    const hostDisks = this.#inspection.disks;
    const diskIndexes = disks.map((disk) => {
      const pair = matched.find(({ guest }) => guest === disk);
      return pair === undefined ? -1 : (this.#diskIndexes[hostDisks.indexOf(pair.host)] ?? -1);
    });
    this.#relay.setCacheMap({ runs, gpaMap: this.#inspection.memory.gpaMap, diskIndexes });
  }

  async #sample(): Promise<void> {
    try {
      // After a switch QEMU has ended, and there is still a lot to tell.
      if (this.#switch?.state !== 'released') this.#migration = await migrationState(this.#monitor);
    } catch {
      // The relay notices when QEMU is gone, and says so in `finished`.
    }
    if (this.#timer !== null) this.#notify(this.#view());
  }

  #view(): SourceSample {
    const { state } = this.#relay!;
    return {
      ...state,
      status: this.#migration?.status ?? 'none',
      remainingBytes: this.#migration?.ram?.remainingBytes ?? 0,
      dirtyBytesPerSecond: this.#migration?.ram?.dirtyBytesPerSecond || null,
      dirtySyncCount: this.#migration?.ram?.passes ?? 0,
      qemuSentBytes: this.#migration?.ram?.transferredBytes ?? 0,
      qemuBytesPerSecond: (this.#migration?.ram?.bandwidthBps ?? 0) / 8,
      throttlePercent: this.#migration?.throttlePercent ?? 0,
      isStopped: this.#isStopped,
      touchedPages: this.#touchedPages,
      remaining: this.#switch?.relay.state.remaining ?? null,
      capture: this.#memory === null ? 'stream' : 'memory file',
      isSentAhead: this.#switch?.relay.state.isSentAhead ?? false,
      heldBackPages: this.#switch?.relay.state.heldBackPages ?? 0,
      expectedUnsentPages: this.#switch?.relay.state.expectedUnsentPages ?? null,
    };
  }

  #stopSampling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}

function relayOptions(params: Params<'source.listen'>, socketPath: string): SourceRelayOptions {
  const { migrationId, key, connections, bandwidthBps, compress, reconnectTimeoutMs } = params;
  return {
    socketPath,
    credentials: { migrationId, key: Buffer.from(key, 'base64') },
    connections,
    bandwidthBps,
    reconnectTimeoutMs,
    elide: true,
    compress,
  };
}

function pagesOn(runs: CacheRuns, disk: number): number {
  let pages = 0;
  for (let run = 0; run < runs.count; run++) if (runs.disk[run] === disk) pages += runs.pageCount[run]!;
  return pages;
}
