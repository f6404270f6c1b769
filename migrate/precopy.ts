/**
 * The pre-copy loop: QEMU goes through the guest's memory while the guest runs, again and again through what was dirtied,
 * until the rest fits into the promised downtime. QEMU is given what is left of that for its part, and stops the guest.
 */
import { call, type SourceSample } from '../host-service/protocol.js';
import type { CacheScans } from './cacheScans.js';
import { Convergence } from './convergence.js';
import { DeliveryMeter } from './deliveryMeter.js';
import { etaMs } from './eta.js';
import { LinkMeter } from './linkMeter.js';
import type { LinkWatch } from './linkWatch.js';
import type { Situation } from './noConvergence.js';
import type { Recorder } from './recorder.js';
import { Rescans } from './rescans.js';
import type { Side } from './sides.js';
import { expectedDowntimeMs, isTimeToSwitch, memoryBudgetMs, type SwitchoverView } from './switchover.js';

export interface PrecopyOptions {
  readonly link: Pick<LinkWatch, 'take' | 'isWhole'>;
  readonly vm: string;
  readonly maxDowntimeMs: number;
  /** What a stop takes however little is to be sent. @param rttMs - between the hosts */
  readonly fixedMs: (rttMs: number) => number;
  /** Of the guest's page cache, which need not be sent; null without an agent. */
  readonly scans: CacheScans | null;
  /** What the destination has put back from its disk so far. */
  readonly restored: () => { readonly pages: number; readonly bytes: number };
  /** What has arrived there from the link, and when that was so by its clock; null before it has said so. */
  readonly arrived: () => { readonly atMs: number; readonly bytes: number } | null;
  /** The guest writes faster than the link takes. To go on is what happens when it does nothing. @throws what ends it */
  readonly notConverging: (situation: Situation, precopy: Precopy) => Promise<void>;
  readonly signal: AbortSignal;
}

/** QEMU is to keep iterating. Zero would end it at the first clean pass. */
const iterateMs = 1;
/** Changes that are smaller than this are not worth telling QEMU, at once. */
const worthTelling = 0.2;
const tellIntervalMs = 250;
/** QEMU has what it needs to stop the guest, and does not: its own idea of the speed is wrong. */
const stopsWithinMs = 3_000;
/** With so many times what fits left, it is too early to let QEMU stop the guest. */
const nearness = 4;
/** For the link to have something to do all the time. */
const busyMs = 15;
/** What is in the socket between QEMU and its relay. */
const maxSocketBytes = 512 * 1024;
/** The most that is under way, and the most that QEMU thinks it sends, of so many samples. */
const samplesKept = 12;
/** What is under way varies: fewer samples may all have been taken when it was little. */
const samplesNeeded = 4;

/** Watches the source's samples from the start of QEMU's migration to the end of its RAM. */
export class Precopy implements Disposable {
  readonly #source: Side;
  readonly #recorder: Recorder;
  readonly #options: PrecopyOptions;
  readonly #meter = new LinkMeter();
  readonly #delivery = new DeliveryMeter();
  readonly #convergence = new Convergence();
  readonly #subscription: Disposable;
  #wake: () => void = () => {};
  #failed: ((error: unknown) => void) | null = null;
  readonly #rescans: Rescans;
  latest: SourceSample | null = null;
  #firstAtMs: number | null = null;
  #backlogs: number[] = [];
  #speeds: number[] = [];
  /** What QEMU may take for its rest, and when it was told. */
  #told = { ms: iterateMs, atMs: 0 };
  #isTelling = false;
  #fitsSinceMs: number | null = null;
  #isForced = false;
  #throttlePercent = 0;

  constructor(source: Side, recorder: Recorder, options: PrecopyOptions) {
    this.#source = source;
    this.#recorder = recorder;
    this.#options = options;
    this.#rescans = new Rescans(recorder.elapsedMs);
    // It was not worth to be waited for any longer.
    if (options.scans?.isUnderWay) this.#scanBegan();
    this.#subscription = source.rpc.onNotification('source.sample', (sample: SourceSample) => this.#take(sample));
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
    this.#giveUpScan();
  }

  /** Resolves when QEMU has stopped the guest. */
  async untilStopped(): Promise<void> {
    await this.#until((sample) => {
      if (hasStopped(sample)) return true;
      this.#judge(sample);
      this.#maybeRescan(sample);
      return false;
    });
    this.#giveUpScan();
  }

  /** Resolves when the guest's RAM has been read. */
  async untilRead(): Promise<void> {
    await this.#until((sample) => sample.ramEnded);
  }

  /** Has the guest stopped whatever that takes. */
  async force(): Promise<void> {
    this.#isForced = true;
    this.#giveUpScan();
    await call(this.#source.rpc, 'source.switchOver', {}, { signal: this.#options.signal });
  }

  async #until(isReached: (sample: SourceSample) => boolean): Promise<void> {
    const { signal } = this.#options;
    while (this.latest === null || !isReached(this.latest)) {
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => reject(signal.reason);
        if (signal.aborted) return onAbort();
        signal.addEventListener('abort', onAbort, { once: true });
        this.#failed = reject;
        this.#wake = () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        };
      });
    }
  }

  #take(sample: SourceSample): void {
    // The first pass may fill the window: what was under way then says nothing of what is from now on.
    if ((this.latest?.dirtySyncCount ?? 0) < 2) this.#backlogs = [];
    this.latest = sample;
    this.#options.link.take(sample);
    const atMs = this.#recorder.elapsedMs;
    this.#firstAtMs ??= atMs;
    const arrived = this.#options.arrived();
    if (arrived !== null)
      this.#delivery.add(arrived.atMs, arrived.bytes, sample.isConnected ? this.#toArrive(sample) : 0);
    const backlogBytes = sample.backlogBytes + this.#inSocketBytes(sample);
    keep(this.#backlogs, backlogBytes);
    if (sample.dirtySyncCount >= 2) keep(this.#speeds, sample.qemuBytesPerSecond);
    const isBusy = backlogBytes * 1000 >= this.#meter.capacityBytesPerSecond * (sample.rttMs + busyMs);
    this.#meter.add(sample.takenAtMs, sample.bytesOnWire, sample.counters.pages.seen, isBusy && sample.isConnected);
    const restored = this.#options.restored();
    const { zero, teleported, sent, mismatched } = sample.counters.pages;
    this.#recorder.sample({
      totalPages: sample.counters.totalPages,
      pages: { zero, teleported, sent, mismatched, restored: restored.pages },
      bytes: { wire: sample.bytesOnWire, stream: sample.counters.bytes.stream, restored: restored.bytes },
      wireBps: Math.round(this.#meter.bytesPerSecond * 8),
      dirtyBytesPerSecond: sample.dirtyBytesPerSecond,
      remainingBytes: sample.remainingBytes,
      etaMs: this.#etaMs(sample),
      ...(sample.throttlePercent === 0 ? {} : { throttlePercent: sample.throttlePercent }),
    });
    this.#wake();
  }

  /** Gives QEMU what it may take for its rest, and notices when that never becomes little enough. */
  #judge(sample: SourceSample): void {
    if (this.#isForced || sample.dirtySyncCount < 2 || this.#backlogs.length < samplesNeeded) return;
    const { maxDowntimeMs, link } = this.#options;
    const atMs = this.#recorder.elapsedMs;
    if (!link.isWhole) return this.#holdBack(atMs);
    const view = this.#view(sample);
    const fits = isTimeToSwitch(view, maxDowntimeMs);
    const { wireBytesPerMemoryByte, linkBytesPerSecond } = view;
    const takesBytesPerSecond = linkBytesPerSecond / wireBytesPerMemoryByte;
    const { dirtySyncCount, remainingBytes, dirtyBytesPerSecond, throttlePercent } = sample;
    // What it did at another speed says nothing of what it does now.
    if (throttlePercent !== this.#throttlePercent) this.#convergence.reset();
    this.#throttlePercent = throttlePercent;
    const verdict = this.#convergence.add({
      ...{ atMs, fits, takesBytesPerSecond, dirtySyncCount, remainingBytes, dirtyBytesPerSecond },
    });
    if (verdict !== null) {
      const situation: Situation = {
        ...verdict,
        vm: this.#options.vm,
        downtimeMs: expectedDowntimeMs(view),
        maxDowntimeMs,
        fixedMs: expectedDowntimeMs({ ...view, remainingBytes: 0, backlogBytes: 0 }),
        wireBytesPerSecond: linkBytesPerSecond,
      };
      this.#convergence.reset();
      this.#options.notConverging(situation, this).catch((error) => this.#failed?.(error));
    }
    if (this.#rescans.holdsUp(atMs)) return;
    this.#fitsSinceMs = fits ? (this.#fitsSinceMs ?? atMs) : null;
    if (this.#fitsSinceMs !== null && atMs - this.#fitsSinceMs >= stopsWithinMs) return this.#give(() => this.force());
    // QEMU decides by the speed that it sees, which may be more than the link's.
    const speed = Math.max(takesBytesPerSecond, ...this.#speeds);
    const budgetMs = (memoryBudgetMs(view, maxDowntimeMs) * takesBytesPerSecond) / Math.max(1, speed);
    const isNear = view.remainingBytes * wireBytesPerMemoryByte <= nearness * linkBytesPerSecond * (budgetMs / 1000);
    const wantedMs = isNear ? Math.max(iterateMs, Math.floor(budgetMs)) : iterateMs;
    const isSame = Math.abs(wantedMs - this.#told.ms) <= worthTelling * this.#told.ms;
    if (isSame || (wantedMs > this.#told.ms && atMs - this.#told.atMs < tellIntervalMs)) return;
    this.#tell(wantedMs, atMs);
  }

  /** A guest that is stopped while the link is cut would stand still for as long as that is. */
  #holdBack(atMs: number): void {
    this.#convergence.reset();
    this.#fitsSinceMs = null;
    if (this.#told.ms > iterateMs) this.#tell(iterateMs, atMs);
  }

  #tell(downtimeLimitMs: number, atMs: number): void {
    if (downtimeLimitMs > iterateMs) this.#giveUpScan();
    this.#give(async () => {
      this.#told = { ms: downtimeLimitMs, atMs };
      const { signal } = this.#options;
      await call(this.#source.rpc, 'source.allowDowntime', { downtimeLimitMs }, { signal });
    });
  }

  #give(telling: () => Promise<void>): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    telling()
      .catch((error) => this.#failed?.(error))
      .finally(() => {
        this.#isTelling = false;
      });
  }

  /** What the guest reads from its disk while it is being moved is page cache, too. */
  #maybeRescan(sample: SourceSample): void {
    const { scans } = this.#options;
    const isAboutToStop = this.#told.ms > iterateMs;
    if (!scans?.mayAsk || isAboutToStop || !this.#rescans.isDue(this.#recorder.elapsedMs, sample)) return;
    scans.again();
    this.#scanBegan();
  }

  #scanBegan(): void {
    this.#rescans.began(this.#recorder.elapsedMs);
    this.#options
      .scans!.over.catch((error) => this.#failed?.(error))
      .finally(() => {
        this.#rescans.ended(this.#recorder.elapsedMs);
        this.#wake();
      });
  }

  #giveUpScan(): void {
    this.#options.scans?.giveUp();
  }

  /** Written by QEMU and not taken yet. */
  #inSocketBytes({ qemuSentBytes, counters }: SourceSample): number {
    return Math.min(maxSocketBytes, Math.max(0, qemuSentBytes - counters.bytes.stream));
  }

  /** Taken from QEMU, and not at the destination yet. What waits there for its disk the link has carried. */
  #toArrive({ backlogBytes, framedBytes }: SourceSample): number {
    return Math.min(backlogBytes, Math.max(0, (framedBytes ?? Infinity) - (this.#options.arrived()?.bytes ?? 0)));
  }

  #view(sample: SourceSample): SwitchoverView {
    return {
      remainingBytes: sample.remainingBytes,
      // QEMU may stop the guest when most is under way.
      backlogBytes: Math.max(0, ...this.#backlogs),
      linkBytesPerSecond: this.#meter.capacityBytesPerSecond,
      rttMs: sample.rttMs,
      wireBytesPerMemoryByte: this.#meter.wireBytesPerMemoryByte,
      dirtySyncCount: sample.dirtySyncCount,
      fixedMs: this.#options.fixedMs(sample.rttMs),
    };
  }

  #etaMs(sample: SourceSample): number | null {
    const { counters, dirtySyncCount } = sample;
    const elapsedMs = this.#recorder.elapsedMs - this.#firstAtMs!;
    const perSecond = (amount: number) => (elapsedMs === 0 ? 0 : (amount / elapsedMs) * 1000);
    const eta = etaMs({
      totalPages: counters.totalPages,
      seenPages: counters.pages.seen,
      sentPages: counters.pages.sent,
      teleportedPages: counters.pages.teleported,
      zeroPages: counters.pages.zero,
      sentBytes: sample.framedBytes ?? 0,
      ahead: sample.ahead,
      touchedPages: sample.touchedPages,
      cachedPages: this.#options.scans?.cachedPages ?? 0,
      linkBytesPerSecond: this.#delivery.bytesPerSecond,
      pagesPerSecond: perSecond(counters.pages.sent + counters.pages.teleported),
      // What is in QEMU's socket the first pass has still ahead of it.
      backlogBytes: this.#toArrive(sample) + (dirtySyncCount < 2 ? 0 : this.#inSocketBytes(sample)),
      remainingBytes: sample.remainingBytes,
      dirtySyncCount,
      dirtyBytesPerSecond: sample.dirtyBytesPerSecond,
      wireBytesPerMemoryByte: this.#meter.wireBytesPerMemoryByte,
      stopMs: this.#options.fixedMs(sample.rttMs) + sample.rttMs,
    });
    return eta === null ? null : Math.round(eta);
  }
}

function hasStopped({ isStopped, ramEnded, status }: SourceSample): boolean {
  return isStopped || ramEnded || status === 'completed' || status === 'device';
}

function keep(values: number[], value: number): void {
  values.push(value);
  if (values.length > samplesKept) values.shift();
}
