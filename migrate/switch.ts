/**
 * Switch: the guest runs on the destination as soon as its last changes can be read at memory speed, and its memory
 * follows. The relays settle the commit point between them, so that the guest waits for nobody else; what the command
 * does is to say when, to watch, and to find out what became of it when something fails.
 */
import {
  call,
  type DestinationSample,
  type Pulled,
  type ScanSummary,
  type SourceSample,
} from '../host-service/protocol.js';
import { untilAborted } from '../host-service/untilAborted.js';
import type { InventoryHost } from '../hosts/index.js';
import { abandon, findOut } from './abandon.js';
import { toVmmigError, VmmigError } from './errors.js';
import { checkExposure } from './exposure.js';
import { guestEnded } from './guestEnded.js';
import { LinkMeter } from './linkMeter.js';
import { Migration, migrate, type Task } from './migration.js';
import { outcome } from './outcome.js';
import type { Prepared } from './prepared.js';
import type { PullProgress } from './progress.js';
import type { MigrationReport } from './report.js';
import type { Hooks, SwitchRequest } from './requests.js';
import type { End } from './resolve.js';
import type { Side } from './sides.js';
import { tally } from './tally.js';
import { pageBytes } from './units.js';
import { type WatchedPull, watchPull } from './watchPull.js';

/** Of QEMU's final pass, at memory speed. */
const finalPassMs = 20;
/** A guest that writes faster than it can be read is given more time, again and again. */
const growthIntervalMs = 2_000;
const maxFinalPassMs = 300;
/** Before that a link has not shown what it takes. */
const measuringMs = 1_000;

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function switchOver(request: SwitchRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  return await migrate('switch', (task) => new Switch(task, request), request, hooks);
}

class Switch extends Migration {
  readonly #request: SwitchRequest;
  readonly #leave: AbortSignal | undefined;
  readonly #meter = new LinkMeter();
  #latest: SourceSample | null = null;
  #restored: DestinationSample | null = null;
  #pulled: Pulled | null = null;
  #wake: () => void = () => {};
  /** By the recorder's clock. */
  #runsSinceMs: number | null = null;
  #isConnected = true;
  /** Nobody needs the services any more. */
  #isOver = false;

  constructor(task: Task, request: SwitchRequest) {
    super(task);
    this.#request = request;
    this.#leave = task.leave;
  }

  protected override get leavesServices(): boolean {
    return this.isStarted && !this.#isOver;
  }

  /** A guest that is too busy for its agent is not to be kept where it is. */
  protected override get waitsForAgent(): boolean {
    return false;
  }

  override get switching(): SwitchRequest {
    return this.#request;
  }

  protected async move(prepared: Prepared, _scan: ScanSummary | null): Promise<void> {
    const { source, destination } = prepared;
    const { recorder, signal } = this;
    using _samples = source.rpc.onNotification('source.sample', (sample: SourceSample) => this.#take(sample));
    using _restored = destination.rpc.onNotification('destination.sample', (sample: DestinationSample) => {
      this.#restored = sample;
    });
    // The guest may be handed over from here on, whether this process lives to see it or not.
    const handedOver = Promise.all([
      call(source.rpc, 'source.switched', {}),
      call(destination.rpc, 'destination.switched', {}),
    ]);
    handedOver.catch(() => {});
    await recorder.during('precopy', () => Promise.race([this.#untilTimeToSwitch(source), handedOver]));
    const [{ stoppedAtMs }, { resumedAtMs }] = await recorder.during('switch-over', async () => {
      await this.journal.writeDurably('committing');
      this.isHeld = true;
      this.commit = 'asked';
      const growing = this.#allowDowntime(source);
      try {
        return await untilAborted(handedOver, signal);
      } finally {
        clearInterval(await growing);
      }
    });
    await this.#tellHandedOver(prepared, stoppedAtMs, resumedAtMs);
    await this.#pull(source.host);
  }

  async #tellHandedOver({ source, destination }: Prepared, stoppedAtMs: number, resumedAtMs: number): Promise<void> {
    const { recorder } = this;
    this.commit = 'done';
    const [sourceClock, destinationClock] = await Promise.all([source.clock, destination.clock]);
    const downtimeMs = resumedAtMs - destinationClock.offsetMs - (stoppedAtMs - sourceClock.offsetMs);
    const sinceMs = Date.now() - (resumedAtMs - destinationClock.offsetMs);
    const switchoverMs = Math.round(recorder.elapsedMs - Math.max(0, sinceMs));
    this.#runsSinceMs = switchoverMs;
    recorder.facts = {
      ...recorder.facts,
      switchoverMs,
      downtimeMs: Math.max(0, Math.round(downtimeMs)),
    };
    await this.journal.writeDurably('committed');
  }

  /** From here on the hosts need nobody; what is lost is the view of them. */
  async #pull(source: InventoryHost): Promise<void> {
    const { recorder, sides, intent } = this;
    this.commit = 'done';
    const watched: WatchedPull = {
      sides,
      hosts: { source, destination: intent.to },
      migrationOn: (host) => this.migrationOn(host),
      reconnectTimeoutMs: this.#request.reconnectTimeoutMs,
      takenOver: (what) => {
        const names = [what.source ? source.name : null, what.destination ? intent.to.name : null];
        const died = names.filter((name) => name !== null).join(' and on ');
        const text = `vmmig on ${died} had died and was replaced: what had come before cannot be verified as a whole`;
        recorder.notice('warn', 'VMMIG_TAKEN_OVER', text);
      },
    };
    const { pulled, sample } = await recorder.during('pull', () => watchPull(watched, this.#leave));
    this.#pulled = pulled;
    if (sample !== null) this.#latest = sample;
    this.#isOver = true;
    const releasedMs = Math.round(recorder.elapsedMs);
    const exposureMs = this.#runsSinceMs === null ? null : Math.round(releasedMs - this.#runsSinceMs);
    const verified = pulled?.hasTakenOver === true ? null : true;
    recorder.facts = { ...recorder.facts, verified, releasedMs, exposureMs };
  }

  protected count(): void {
    const sides = [this.sides.source, this.sides.destination].filter((side) => side !== null);
    const loaded = this.#pulled ?? (this.#restored === null ? null : { ...this.#restored, bytesOnWire: 0 });
    this.recorder.facts = {
      ...this.recorder.facts,
      ...tally(this.#latest, loaded, sides),
      faults: this.#pulled?.faults ?? this.#restored?.faults ?? null,
    };
  }

  /** QEMU stops the guest when it is done, whoever watches: once it has begun, the hosts are asked where the guest is. */
  protected override async giveUp(thrown: unknown): Promise<MigrationReport> {
    if (!this.isStarted) return await abandon(this, thrown);
    const { recorder } = this;
    const phase = recorder.failedPhase ?? recorder.phase;
    await this.journal.write('rollback', { phase, commit: this.commit, error: String(thrown) }).catch(() => {});
    if (this.commit === 'done') return await this.#interrupted(thrown);
    this.commit = 'asked';
    const source = this.sides.source!.host;
    const end = await findOut(this);
    const cancelled = toVmmigError(thrown).code === 'VMMIG_CANCELLED';
    const { result, vmLocation } = outcome({ end, cancelled, mayBeHeld: true, complete: false });
    if (vmLocation === 'destination') return await this.#goOn(source, end);
    this.#isOver = vmLocation === 'source' || end === 'ended';
    const error =
      end === 'ended'
        ? guestEnded(this.request.vm, source.name, thrown, phase)
        : toVmmigError(thrown, { phase, vmLocation });
    return await recorder.finish(result, vmLocation, error);
  }

  /** What failed, or was to be cancelled, came too late: the guest has been handed over. */
  async #goOn(source: InventoryHost, end: End): Promise<MigrationReport> {
    const { recorder } = this;
    if (end === 'unreleased') {
      const text = `${this.request.vm} runs on ${this.intent.to.name}, but its paused remains on ${source.name} could not be ended`;
      recorder.notice('warn', 'VMMIG_SOURCE_NOT_RELEASED', text);
    }
    try {
      await this.#pull(source);
      this.count();
      return await recorder.finish('moved', 'destination', null);
    } catch (thrown) {
      this.count();
      return await this.#interrupted(thrown);
    }
  }

  /** The guest runs on the destination, and this command has lost sight of what it still needs. */
  async #interrupted(thrown: unknown): Promise<MigrationReport> {
    const { code, message } = this.#leave?.aborted ? left : toVmmigError(thrown);
    const { vm } = this.request;
    const to = this.intent.to.name;
    const text =
      code === 'VMMIG_MEMORY_LOST'
        ? `${message}: ${this.#lost()} ${vm} runs on ${to} only until it touches them. End it there and start it again from its disk`
        : `${message}. ${vm} runs on ${to} and may still need memory from the source: run "vmmig recover ${vm}"`;
    const error = new VmmigError(code, text, { phase: 'pull', vmLocation: 'destination', retryable: false });
    return await this.recorder.finish('interrupted', 'destination', error);
  }

  #lost(): string {
    const pages = this.#latest?.remaining?.bytesPages ?? 0;
    const mebibytes = ((pages * pageBytes) / 2 ** 20).toFixed(1);
    return `${pages.toLocaleString('en')} pages (${mebibytes} MiB) were nowhere else and are lost.`;
  }

  async #untilTimeToSwitch(source: Side): Promise<void> {
    const { after, maxExposureMs, prefetchShare = 0 } = this.#request;
    const startMs = this.recorder.elapsedMs;
    const hasLasted = (ms: number) => this.recorder.elapsedMs - startMs >= ms;
    if (after === 'converged') {
      await this.#until((sample) => isCaptured(sample) && isSent(sample));
      if (this.#latest!.heldBackPages > 0) {
        await call(source.rpc, 'source.keepUp', {}, { signal: this.signal });
        // QEMU stops a guest that writes little by itself then.
        await this.#until((sample) => sample.ramEnded || (sample.dirtySyncCount >= 2 && isSent(sample)));
      }
    } else if (after !== 'now') await this.#until((sample) => isCaptured(sample) && hasLasted(after));
    if (prefetchShare > 0)
      await this.#until((sample) => sample.ramEnded || (isCaptured(sample) && sample.expectedUnsentPages === 0));
    if (maxExposureMs === undefined) return;
    await this.#until(
      (sample) => sample.ramEnded || (isCaptured(sample) && (isSent(sample) || hasLasted(measuringMs))),
    );
    const { counters, bytesOnWire: wireBytes, remaining, heldBackPages } = this.#latest!;
    const leftPages = (remaining?.bytesPages ?? 0) + heldBackPages;
    const { capacityBytesPerSecond: linkBytesPerSecond } = this.#meter;
    checkExposure({ leftPages, sentPages: counters.pages.sent, wireBytes, linkBytesPerSecond }, maxExposureMs);
  }

  async #until(isReached: (sample: SourceSample) => boolean): Promise<void> {
    for (;;) {
      this.signal.throwIfAborted();
      if (this.#latest !== null && isReached(this.#latest)) return;
      await new Promise<void>((wake) => {
        this.#wake = wake;
        setTimeout(wake, 1000).unref();
      });
    }
  }

  /** QEMU stops the guest by itself once the rest is small; this says what small is. */
  async #allowDowntime(source: Side): Promise<NodeJS.Timeout> {
    let downtimeLimitMs = finalPassMs;
    const allow = () => call(source.rpc, 'source.allowDowntime', { downtimeLimitMs }).catch(() => {});
    await allow();
    return setInterval(() => {
      downtimeLimitMs = Math.min(maxFinalPassMs, downtimeLimitMs * 2);
      void allow();
    }, growthIntervalMs);
  }

  #take(sample: SourceSample): void {
    this.#latest = sample;
    this.#meter.add(this.recorder.elapsedMs, sample.bytesOnWire, sample.counters.pages.seen);
    const { zero, teleported, sent, mismatched } = sample.counters.pages;
    const restored = this.#restored?.counters;
    const leftBytes = (sample.remaining?.bytesPages ?? 0) * pageBytes;
    this.#tellOfLink(sample.isConnected ?? true);
    const pull = this.#pullProgress(sample);
    this.recorder.sample({
      ...(pull === null ? {} : { pull }),
      totalPages: sample.counters.totalPages,
      pages: { zero, teleported, sent, mismatched, restored: restored?.pages.restored ?? 0 },
      bytes: {
        wire: sample.bytesOnWire,
        stream: sample.counters.bytes.stream,
        restored: restored?.bytes.restored ?? 0,
      },
      wireBps: Math.round(this.#meter.bytesPerSecond * 8),
      dirtyBytesPerSecond: sample.dirtyBytesPerSecond,
      remainingBytes: this.commit === 'done' ? leftBytes : sample.remainingBytes,
      etaMs:
        this.#meter.capacityBytesPerSecond === 0
          ? null
          : Math.round((leftBytes / this.#meter.capacityBytesPerSecond) * 1000),
    });
    this.#wake();
  }

  #pullProgress({ remaining, reconnects }: SourceSample): PullProgress | null {
    if (this.#runsSinceMs === null) return null;
    return {
      runningMs: Math.round(this.recorder.elapsedMs - this.#runsSinceMs),
      neededBytes: (remaining?.bytesPages ?? 0) * pageBytes,
      missingPages: this.#restored?.missingPages ?? 0,
      faults: this.#restored?.faults ?? null,
      isConnected: this.#isConnected,
      reconnects,
    };
  }

  /** After the switch a network that fails is nothing but a wait. */
  #tellOfLink(isConnected: boolean): void {
    if (this.commit === 'before' || isConnected === this.#isConnected) return;
    this.#isConnected = isConnected;
    const { vm, to } = { vm: this.request.vm, to: this.intent.to.name };
    if (isConnected) this.recorder.notice('info', 'VMMIG_LINK_LOST', 'the relays are connected again');
    else
      this.recorder.notice(
        'warn',
        'VMMIG_LINK_LOST',
        `the link was lost: ${vm} runs on ${to} and waits for memory that is not there yet; trying again`,
      );
  }
}

const left = { code: 'VMMIG_LEFT', message: 'The command was made to end' } as const;

/** QEMU has been through the guest's memory, but for what it is held back by: what is left is known. */
function isCaptured({ dirtySyncCount, capture, heldBackPages, ramEnded }: SourceSample): boolean {
  return dirtySyncCount >= 2 || capture === 'memory file' || heldBackPages > 0 || ramEnded;
}

/** Nearly all that the guest has is on the destination. */
function isSent({ remaining, counters, capture, isSentAhead }: SourceSample): boolean {
  if (capture === 'memory file') return isSentAhead;
  return remaining !== null && remaining.bytesPages + remaining.referencePages < counters.totalPages / 100;
}
