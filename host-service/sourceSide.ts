/**
 * The source host's part in one migration. Until `hold`, whatever ends the session makes the guest go on here;
 * from `hold` on it stays as it is, because by then it may run on the destination.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { matchDisks } from '../disk/match.js';
import type { CacheRuns } from '../guest-agent/cacheMap.js';
import type { ScanResult } from '../guest-agent/client.js';
import type { GuestAgent } from '../guest-agent/guestAgent.js';
import {
  applyMigrationSettings,
  cancelMigration,
  type GuestInspection,
  inspectGuest,
  inspectGuestServices,
  type MigrationState,
  migrationState,
  type PreviousSettings,
  quitSource,
  resumeAfterFailure,
  startMigration,
  waitForMigrationEnd,
} from '../hypervisor/index.js';
import { QmpClient } from '../qmp/index.js';
import { SourceRelay, type SourceRelayOptions } from '../relay/source/sourceRelay.js';
import type { SwitchSource } from '../relay/source/switchSource.js';
import { eventTimeMs } from './clock.js';
import { findAgent } from './findAgent.js';
import type { GuestAddress, Params, Results, ScanSummary, SourceSample } from './protocol.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';
import { expectedUse } from './switching/expectedUse.js';
import { type OpenMemory, openGuestMemory } from './switching/guestMemory.js';
import { type OrphanedMigration, postToSource, pulledElsewhere } from './switching/orphans.js';
import { SourceSwitch } from './switching/sourceSwitch.js';
import { reconnectSource } from './switching/takeover.js';

const sampleIntervalMs = 50;
/** QEMU is to keep iterating until it is told otherwise: see `switchOver`. Zero would end it at the first clean pass. */
const iterateDowntimeLimitMs = 1;
/** The longest that QEMU takes. */
const finishDowntimeLimitMs = 2_000_000;
const undoTimeoutMs = 15_000;
const agentPatienceMs = 2_000;
/** What was brought into the guest also leaves by itself: the guest is not kept for it. */
const agentRestMs = 300;
/** Above what any QEMU reaches: the link is what limits, by backpressure. */
const unlimitedBytesPerSecond = 2 ** 40;
/** With a limit of 1 ms less than a page counts as little enough: a guest that hardly writes would be stopped otherwise. */
const heldBackBytesPerSecond = 3_000_000;

export class SourceSide implements AsyncDisposable {
  readonly #notify: (sample: SourceSample) => void;
  #qmp: QmpClient | null = null;
  #agent: GuestAgent | null = null;
  #inspection: GuestInspection | null = null;
  #scan: ScanResult | null = null;
  #relay: SourceRelay | SwitchSource | null = null;
  #switch: SourceSwitch | null = null;
  /** Of a switch, where the guest's memory is kept in files: QEMU has next to nothing to copy. */
  #memory: OpenMemory | null = null;
  #hasSetOut = false;
  #diskIndexes: readonly number[] = [];
  #directory: string | null = null;
  #previous: PreviousSettings | null = null;
  #migrating = false;
  #held = false;
  /** QEMU has sent everything, the destination has it, and nothing was undone since. */
  #isComplete = false;
  #stopped: Promise<number> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #migration: MigrationState | null = null;
  #scanning: Promise<unknown> = Promise.resolve();

  constructor(notify: (sample: SourceSample) => void) {
    this.#notify = notify;
  }

  async inspect(guest: Params<'source.inspect'>, signal: AbortSignal): Promise<Results['source.inspect']> {
    const qmp = await this.#monitor(guest, signal);
    const inspection = await inspectGuest({ ...guest, qmp, signal });
    this.#inspection = inspection;
    if (guest.noAgent) return { inspection, agent: null };
    const { agent, search } = await findAgent(inspection.agentPath, await inspectGuestServices(qmp, signal), signal);
    this.#agent = agent;
    return { inspection, agent: search };
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

  /** Listens for QEMU, whose stream waits until the relays have met. */
  async listen(params: Params<'source.listen'>): Promise<null> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#diskIndexes = params.diskIndexes;
    if (params.switching === null) this.#relay = await SourceRelay.listen(relayOptions(params, directory));
    else this.#relay = (await this.#startSwitch(params)).relay;
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
    this.#relay.begin();
    return null;
  }

  async #startSwitch(params: Params<'source.listen'>): Promise<SourceSwitch> {
    const inspection = this.#inspection!;
    const limits = () => AbortSignal.timeout(undoTimeoutMs);
    this.#memory = await openGuestMemory(this.#qmp!, inspection.process);
    this.#switch = await SourceSwitch.start({
      params,
      inspection,
      memory: this.#memory,
      resumeGuest: () => this.#undo(this.#qmp!, inspection.running, limits()),
      endQemu: () => this.#endQemu(limits()),
      pulled: () => this.#pulled(),
    });
    void this.#expectUse();
    return this.#switch;
  }

  async #expectUse(signal?: AbortSignal): Promise<void> {
    this.#switch!.relay.expectUse(await expectedUse(this.#qmp!, this.#inspection!, signal));
  }

  /** Lets QEMU migrate into the relay. */
  async start({ isHeldBack }: Params<'source.start'>, signal: AbortSignal): Promise<null> {
    const qmp = this.#qmp!;
    const bytesPerSecond = isHeldBack ? heldBackBytesPerSecond : unlimitedBytesPerSecond;
    this.#previous = await applyMigrationSettings(
      qmp,
      {
        capabilities: {
          events: true,
          xbzrle: false,
          'auto-converge': false,
          'postcopy-ram': false,
          multifd: false,
          'return-path': false,
          'release-ram': false,
          'x-ignore-shared': this.#memory !== null,
          'pause-before-switchover': false,
        },
        parameters: { 'max-bandwidth': bytesPerSecond, 'downtime-limit': iterateDowntimeLimitMs },
      },
      { signal },
    );
    this.#stopped = qmp.waitFor('STOP').then(eventTimeMs);
    this.#stopped.then(() => this.#switch?.relay.guestStopped()).catch(() => {});
    this.#migrating = true;
    // QEMU would stop the guest at once where there is next to nothing to copy.
    if (this.#memory === null) await this.#setOut(signal);
    this.#timer = setInterval(() => void this.#sample(), sampleIntervalMs);
    return null;
  }

  async switchOver(signal: AbortSignal): Promise<null> {
    return await this.allowDowntime({ downtimeLimitMs: finishDowntimeLimitMs }, signal);
  }

  /** From now on QEMU stops the guest as soon as the rest takes no longer than this at memory speed. */
  async allowDowntime({ downtimeLimitMs }: Params<'source.allowDowntime'>, signal: AbortSignal): Promise<null> {
    await Promise.race([this.#agent?.rest(), delay(agentRestMs, undefined, { ref: false })]);
    this.#switch?.permit();
    const parameters = { 'downtime-limit': downtimeLimitMs, 'max-bandwidth': unlimitedBytesPerSecond };
    await this.#qmp!.execute('migrate-set-parameters', parameters, { signal });
    if (this.#memory !== null && !this.#hasSetOut) {
      this.#hasSetOut = true;
      const { relay } = this.#switch!;
      await relay.warmedUp(signal);
      await Promise.all([relay.endAhead(signal), this.#expectUse(signal)]);
      await this.#setOut(signal);
    } else this.#switch?.relay.mayStop();
    return null;
  }

  async #setOut(signal: AbortSignal): Promise<void> {
    await startMigration(this.#qmp!, `unix:${join(this.#directory!, 'source')}`, { signal });
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
    return { state: await (this.#switch?.post(event) ?? postToSource(migration, event)) };
  }

  /** Another relay waits at the destination, or that needs nothing any more. @throws RelayError, ServiceError */
  async reconnect({ runDir, migrationId, endpoint }: Params<'source.reconnect'>): Promise<null> {
    if (this.#switch !== null) await this.#switch.reconnect(endpoint);
    else await reconnectSource(runDir, migrationId, endpoint);
    return null;
  }

  /** Resolves when this service is of no use to the guest any more. */
  async settled(): Promise<void> {
    await this.#switch?.settled();
  }

  /** Resolves when QEMU has sent everything and the destination's memory was found equal. */
  async finished(signal: AbortSignal): Promise<Results['source.finished']> {
    await untilAborted(this.#relay!.finished, signal);
    const state = await waitForMigrationEnd(this.#qmp!, { signal });
    if (state.status !== 'completed')
      throw new ServiceError(
        'VMMIG_SOURCE_MIGRATION',
        `QEMU calls its migration ${state.status}: ${state.error ?? ''}`,
      );
    this.#migration = state;
    this.#isComplete = true;
    return { stoppedAtMs: await this.#stopped!, sample: this.#view() };
  }

  /** From here on only the caller can say where the guest is. Refused once the guest may have been let run again. */
  hold(): null {
    if (!this.#isComplete) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no complete migration to hold');
    this.#held = true;
    return null;
  }

  /** Cancels what is under way and lets the guest run again. Asked for by who knows that it does not run elsewhere. */
  async rollback(params: Params<'source.rollback'>, signal: AbortSignal): Promise<Results['source.rollback']> {
    if (this.#switch !== null) return { running: (await this.#switch.post('abandon')) === 'resumed' };
    this.#held = false;
    const qmp = await this.#monitor(params, signal);
    await this.#undo(qmp, this.#inspection?.running ?? true, signal);
    const { running } = await qmp.execute('query-status', {}, { signal });
    await rm(join(params.runDir, params.migrationId), { recursive: true, force: true });
    return { running };
  }

  /** Ends the source's QEMU: its guest runs on the destination. */
  async release(params: Params<'source.release'>, signal: AbortSignal): Promise<null> {
    this.#held = true;
    this.#stopSampling();
    const qmp = await this.#monitor(params, signal);
    const { process } = this.#inspection ?? (await inspectGuest({ ...params, qmp, signal }));
    await this.#agent?.[Symbol.asyncDispose]();
    await quitSource(qmp, process, { signal });
    await rm(join(params.runDir, params.migrationId), { recursive: true, force: true });
    this.#migrating = false;
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopSampling();
    const mustUndo = this.#switch === null && !this.#held && this.#migrating && this.#qmp !== null;
    await releaseAll([
      () => this.#switch?.[Symbol.asyncDispose](),
      () => mustUndo && this.#undo(this.#qmp!, this.#inspection?.running ?? true, AbortSignal.timeout(undoTimeoutMs)),
      () => this.#relay?.[Symbol.asyncDispose](),
      // In doubt, it is what `recover` finds the guest by.
      () => this.#directory && !this.#switch?.isInDoubt && rm(this.#directory, { recursive: true, force: true }),
      () => this.#agent?.[Symbol.asyncDispose](),
      () => this.#qmp?.close(),
    ]);
  }

  async #undo(qmp: QmpClient, wasRunning: boolean, signal: AbortSignal): Promise<void> {
    this.#isComplete = false;
    this.#stopSampling();
    this.#relay?.abort();
    const { final } = await migrationState(qmp, { signal });
    if (!final) await cancelMigration(qmp, { wasRunning, signal });
    await resumeAfterFailure(qmp, { wasRunning, signal });
    await this.#previous?.restore({ signal });
    this.#previous = null;
    this.#migrating = false;
  }

  async #endQemu(signal: AbortSignal): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
    await quitSource(this.#qmp!, this.#inspection!.process, { signal });
    this.#migrating = false;
  }

  async #monitor(guest: GuestAddress, signal: AbortSignal): Promise<QmpClient> {
    this.#qmp ??= await QmpClient.connect({ path: guest.qmpPath }, { signal, timeoutMs: 5_000 });
    return this.#qmp;
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
      if (this.#switch?.state !== 'released') this.#migration = await migrationState(this.#qmp!);
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
      remaining: this.#switch?.relay.state.remaining ?? null,
      capture: this.#memory === null ? 'stream' : 'memory file',
      isSentAhead: this.#switch?.relay.state.isSentAhead ?? false,
      isConnected: this.#switch?.relay.state.isConnected ?? null,
    };
  }

  #stopSampling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}

function relayOptions(params: Params<'source.listen'>, directory: string): SourceRelayOptions {
  const { migrationId, key, connections, bandwidthBps, compress } = params;
  return {
    socketPath: join(directory, 'source'),
    credentials: { migrationId, key: Buffer.from(key, 'base64') },
    connections,
    bandwidthBps,
    elide: true,
    compress,
  };
}

function pagesOn(runs: CacheRuns, disk: number): number {
  let pages = 0;
  for (let run = 0; run < runs.count; run++) if (runs.disk[run] === disk) pages += runs.pageCount[run]!;
  return pages;
}

function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
