/**
 * Teleport: everything is put back on the destination before the guest resumes there, the page cache from the
 * shared disk. Before the commit point every way out leaves the guest running on the source.
 */
import { call, type DestinationSample, type Loaded } from '../host-service/protocol.js';
import { conclude } from './abandon.js';
import type { CacheScans } from './cacheScans.js';
import { VmmigError } from './errors.js';
import { whatBothSay } from './handOver.js';
import { LinkWatch } from './linkWatch.js';
import { Migration, migrate } from './migration.js';
import {
  adviseNoConvergence,
  defaultOnNoConverge,
  describeNoConvergence,
  noConvergence,
  type Situation,
} from './noConvergence.js';
import { Precopy, type PrecopyOptions } from './precopy.js';
import type { Prepared } from './prepared.js';
import type { ProgressEvent } from './progress.js';
import type { MigrationReport } from './report.js';
import type { Hooks, MigrateRequest } from './requests.js';
import { StopCosts } from './stopCosts.js';
import { switchOver } from './switch.js';
import { tally } from './tally.js';

const defaultMaxDowntimeMs = 300;
/** Of a switch that a teleport has become: as of one that was asked for. */
const reconnectTimeoutMs = 60 * 60 * 1000;
/** As much as QEMU takes from a guest's processors. */
const mostThrottlePercent = 99;
/** A guest that hardly runs any more has written what it had begun to write by then. */
const throttledPatienceMs = 30_000;
/**
 * Longer than what networks mend by themselves (a router's failover, a switch that restarts its ports); no longer than
 * applications keep their own connections open, so that a network which is gone is told soon.
 */
const defaultReconnectTimeoutMs = 60_000;

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function teleport(request: MigrateRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  const teleporting = (own: Hooks) => migrate('teleport', (task) => new Teleport(task), request, own);
  return request.onNoConverge === 'switch' ? await orSwitch(request, hooks, teleporting) : await teleporting(hooks);
}

/** A stream that QEMU has begun cannot become a switch's: it is ended, as by a failure, and the guest is switched anew. */
async function orSwitch(
  request: MigrateRequest,
  hooks: Hooks,
  teleporting: (hooks: Hooks) => Promise<MigrationReport>,
): Promise<MigrationReport> {
  const tell = hooks.onProgress ?? (() => {});
  let end: ProgressEvent | null = null;
  const report = await teleporting({
    ...hooks,
    // The last event of all that this command does is told at its end.
    onProgress: (event) => {
      if (event.type === 'end') end = event;
      else tell(event);
    },
  });
  if (report.error?.code !== 'VMMIG_NO_CONVERGE' || report.vmLocation !== 'source' || hooks.signal?.aborted) {
    if (end !== null) tell(end);
    return report;
  }
  return await switchOver({ ...request, after: 'now', spill: false, reconnectTimeoutMs }, hooks);
}

class Teleport extends Migration {
  #precopying: Precopy | null = null;
  #loaded: Loaded | null = null;
  #hasToldOfDirt = false;
  /** Seen not to converge with all of the throttling that there is. */
  #throttledSinceMs: number | null = null;
  /** Nobody needs the services any more. */
  #isOver = false;

  override get reconnectTimeoutMs(): number {
    return this.request.reconnectTimeoutMs ?? defaultReconnectTimeoutMs;
  }

  /** From the commit point on they may find out from each other what a lost command does not tell them. */
  protected override get leavesServices(): boolean {
    return this.isHeld && !this.#isOver;
  }

  /** An agent that has processor time tells of a million pages within that. */
  readonly agentPatienceMs = 5_000;

  protected async move(prepared: Prepared, scans: CacheScans | null): Promise<void> {
    const stoppedAtMs = await this.#precopy(prepared, scans);
    await this.#letRun(prepared, stoppedAtMs);
    await this.#release(prepared);
    this.#isOver = true;
  }

  protected override async giveUp(thrown: unknown): Promise<MigrationReport> {
    const report = await super.giveUp(thrown);
    this.#isOver = report.vmLocation !== 'unknown';
    return report;
  }

  /** From the start of QEMU's migration to the destination's QEMU holding the same memory. @returns when the guest stopped */
  async #precopy({ source, destination }: Prepared, scans: CacheScans | null): Promise<number> {
    const { recorder, signal } = this;
    let restored = { pages: 0, bytes: 0 };
    let arrived: ReturnType<PrecopyOptions['arrived']> = null;
    using _subscription = destination.rpc.onNotification('destination.sample', (sample: DestinationSample) => {
      const { pages, bytes } = sample.counters;
      restored = { pages: pages.restored, bytes: bytes.restored };
      arrived = { atMs: sample.takenAtMs, bytes: sample.bytesOnWire };
    });
    using costs = new StopCosts(source, destination, this.journal);
    using link = new LinkWatch(destination, recorder, this.reconnectTimeoutMs);
    using precopy = new Precopy(source, recorder, {
      link,
      vm: this.request.vm,
      maxDowntimeMs: this.request.maxDowntimeMs ?? defaultMaxDowntimeMs,
      fixedMs: (rttMs) => costs.fixedMs(rttMs),
      notConverging: (situation, pass) => this.#notConverging(source, pass, situation),
      scans,
      restored: () => restored,
      arrived: () => arrived,
      signal,
    });
    this.#precopying = precopy;
    const sent = call(source.rpc, 'source.finished', {}, { signal });
    const loaded = call(destination.rpc, 'destination.finished', {}, { signal });
    const done = whatBothSay(sent, loaded);
    const whatFails = done.then(() => new Promise<never>(() => {}));
    whatFails.catch(() => {});
    await recorder.during('precopy', () => Promise.race([precopy.untilStopped(), whatFails]));
    await recorder.during('switch-over', () => Promise.race([precopy.untilRead(), whatFails]));
    return await recorder.during('restore', async () => {
      const [{ stoppedAtMs, sample }, result] = await done;
      precopy.latest = sample;
      this.#loaded = result;
      recorder.facts = { ...recorder.facts, verified: true };
      return stoppedAtMs - (await source.clock).offsetMs;
    });
  }

  /** As the operator has said. @throws VmmigError VMMIG_NO_CONVERGE */
  async #notConverging({ rpc }: Prepared['source'], precopy: Precopy, situation: Situation): Promise<void> {
    const policy = this.request.onNoConverge ?? defaultOnNoConverge;
    const what = describeNoConvergence(situation);
    const tell = (done: string) => this.recorder.notice('warn', 'VMMIG_NO_CONVERGE', `${what}. ${done}`);
    switch (policy) {
      case 'wait':
        if (!this.#hasToldOfDirt) tell(`It is tried on. What would help: ${adviseNoConvergence(situation)}`);
        this.#hasToldOfDirt = true;
        return;
      case 'throttle':
        if ((precopy.latest?.throttlePercent ?? 0) >= mostThrottlePercent) {
          this.#throttledSinceMs ??= this.recorder.elapsedMs;
          if (this.recorder.elapsedMs - this.#throttledSinceMs >= throttledPatienceMs) throw noConvergence(situation);
          return;
        }
        if (!this.#hasToldOfDirt) tell('It is slowed down until it has moved');
        this.#hasToldOfDirt = true;
        await call(rpc, 'source.throttle', {}, { signal: this.signal });
        return;
      case 'stop-and-copy':
        tell('It is stopped, and moved');
        return await precopy.force();
      case 'switch':
        tell('It goes on here, and is then switched: its memory follows it');
        throw noConvergence(situation);
      case 'cancel':
        throw noConvergence(situation);
    }
  }

  /** The commit point: from here on the source does not resume by itself. */
  async #letRun({ source, destination }: Prepared, stoppedAtMs: number): Promise<void> {
    const { recorder, journal } = this;
    await recorder.during('verify', async () => {
      const { signal } = this;
      this.isHeld = true;
      await Promise.all([
        journal.writeDurably('committing', {
          destinationProcess: this.destinationProcess,
          destinationName: this.request.domain?.destinationName ?? null,
        }),
        call(source.rpc, 'source.hold', {}, { signal }),
      ]);
      signal.throwIfAborted();
      this.commit = 'asked';
      const { resumedAtMs } = await call(destination.rpc, 'destination.commit', {}, { timeoutMs: 30_000 });
      this.commit = 'done';
      const switchoverMs = Math.round(recorder.elapsedMs);
      await journal.writeDurably('committed');
      const localMs = resumedAtMs - (await destination.clock).offsetMs;
      recorder.facts = { ...recorder.facts, switchoverMs, downtimeMs: Math.max(0, Math.round(localMs - stoppedAtMs)) };
    });
  }

  async #release({ source }: Prepared): Promise<void> {
    await this.recorder.during('release source', async () => {
      const release = { ...this.migrationOn(source.host), event: 'release' } as const;
      const { state } = await call(source.rpc, 'source.post', release, { timeoutMs: 30_000 });
      if (state !== 'released') throw new VmmigError('VMMIG_SOURCE_NOT_RELEASED', `the source says "${state}"`);
    });
    this.recorder.facts = { ...this.recorder.facts, releasedMs: Math.round(this.recorder.elapsedMs) };
    await conclude(this);
  }

  protected count(): void {
    const sides = [this.sides.source, this.sides.destination].filter((side) => side !== null);
    this.recorder.facts = { ...this.recorder.facts, ...tally(this.#precopying?.latest ?? null, this.#loaded, sides) };
  }
}
