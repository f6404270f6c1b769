/**
 * The pre-copy loop: QEMU goes through the guest's memory while the guest runs, again and again through what
 * was dirtied, until the rest fits into the promised downtime; then it is told to finish.
 */
import { call, type SourceSample } from '../host-service/protocol.js';
import { LinkMeter } from './linkMeter.js';
import type { Recorder } from './recorder.js';
import type { Side } from './sides.js';
import { expectedDowntimeMs, isTimeToSwitch, type SwitchoverView } from './switchover.js';

export interface PrecopyOptions {
  readonly maxDowntimeMs: number;
  /** Asks the agent what has changed; null without an agent. */
  readonly rescan: (() => Promise<void>) | null;
  /** What the destination has put back from its disk so far. */
  readonly restored: () => { readonly pages: number; readonly bytes: number };
  readonly signal: AbortSignal;
}

/** Scans cost the guest time: there is this much between two of them. */
const rescanIntervalMs = 2000;
/** A scan dirties some of the guest's memory itself: it has to save more than that. */
const rescanWorthBytes = 32 * 1024 * 1024;

/** Watches the source's samples from the start of QEMU's migration to the end of its RAM. */
export class Precopy implements Disposable {
  readonly #source: Side;
  readonly #recorder: Recorder;
  readonly #options: PrecopyOptions;
  readonly #meter = new LinkMeter();
  readonly #subscription: Disposable;
  #wake: () => void = () => {};
  #failed: ((error: unknown) => void) | null = null;
  #lastScanMs: number;
  #isScanning = false;
  latest: SourceSample | null = null;

  constructor(source: Side, recorder: Recorder, options: PrecopyOptions) {
    this.#source = source;
    this.#recorder = recorder;
    this.#options = options;
    this.#lastScanMs = recorder.elapsedMs;
    this.#subscription = source.rpc.onNotification('source.sample', (sample: SourceSample) => this.#take(sample));
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  /** Resolves when it is time to stop the guest, or QEMU has done so by itself. */
  async untilTimeToSwitch(): Promise<void> {
    await this.#until((sample) => {
      if (sample.ramEnded || sample.status === 'completed' || sample.status === 'device') return true;
      if (!this.#isScanning && isTimeToSwitch(this.#view(sample), this.#options.maxDowntimeMs)) return true;
      this.#maybeRescan(sample);
      return false;
    });
  }

  /** Resolves when the guest has stopped and its RAM has been read. */
  async untilStopped(): Promise<void> {
    await call(this.#source.rpc, 'source.switchOver', {}, { signal: this.#options.signal });
    await this.#until((sample) => sample.ramEnded);
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
    this.latest = sample;
    this.#meter.add(this.#recorder.elapsedMs, sample.bytesOnWire, sample.counters.pages.seen);
    const view = this.#view(sample);
    const restored = this.#options.restored();
    const { zero, teleported, sent, mismatched } = sample.counters.pages;
    this.#recorder.sample({
      totalPages: sample.counters.totalPages,
      pages: { zero, teleported, sent, mismatched, restored: restored.pages },
      bytes: { wire: sample.bytesOnWire, stream: sample.counters.bytes.stream, restored: restored.bytes },
      wireBps: Math.round(this.#meter.bytesPerSecond * 8),
      dirtyBytesPerSecond: sample.dirtyBytesPerSecond,
      remainingBytes: sample.remainingBytes,
      etaMs: this.#meter.capacityBytesPerSecond === 0 ? null : Math.round(expectedDowntimeMs(view)),
    });
    this.#wake();
  }

  /** What the guest reads from its disk while it is being moved is page cache, too. */
  #maybeRescan(sample: SourceSample): void {
    const { rescan } = this.#options;
    const isDue = this.#recorder.elapsedMs - this.#lastScanMs >= rescanIntervalMs && sample.dirtySyncCount >= 2;
    if (rescan === null || this.#isScanning || !isDue || sample.remainingBytes < rescanWorthBytes) return;
    this.#isScanning = true;
    rescan()
      .catch((error) => this.#failed?.(error))
      .finally(() => {
        this.#isScanning = false;
        this.#lastScanMs = this.#recorder.elapsedMs;
        this.#wake();
      });
  }

  #view(sample: SourceSample): SwitchoverView {
    return {
      remainingBytes: sample.remainingBytes,
      backlogBytes: sample.backlogBytes,
      linkBytesPerSecond: this.#meter.capacityBytesPerSecond,
      rttMs: sample.rttMs,
      wireBytesPerMemoryByte: this.#meter.wireBytesPerMemoryByte,
      dirtySyncCount: sample.dirtySyncCount,
    };
  }
}
