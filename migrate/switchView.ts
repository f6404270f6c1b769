/** What both hosts tell of a switch while it goes on, as it is told the operator and waited for. */
import type { DestinationSample, SourceSample } from '../host-service/protocol.js';
import { DeliveryMeter } from './deliveryMeter.js';
import { LinkMeter } from './linkMeter.js';
import type { LinkWatch } from './linkWatch.js';
import type { PullProgress } from './progress.js';
import type { Recorder } from './recorder.js';
import type { Side } from './sides.js';
import { pageBytes } from './units.js';

export class SwitchView implements Disposable {
  readonly #recorder: Recorder;
  /** For people: what is moved, and where to. */
  readonly #names: { readonly vm: string; readonly to: string };
  readonly #link: Pick<LinkWatch, 'take'>;
  readonly #subscriptions: readonly Disposable[];
  readonly #meter = new LinkMeter();
  readonly #delivery = new DeliveryMeter();
  #wake: () => void = () => {};
  #isConnected = true;
  latest: SourceSample | null = null;
  restored: DestinationSample | null = null;
  /** From `asked` on the guest may be the destination's: to it a network that fails is nothing but a wait. */
  commit: 'before' | 'asked' | 'done' = 'before';
  /** Since when the guest runs on the destination, by the recorder's clock; null before that is known. */
  runsSinceMs: number | null = null;

  constructor(
    { source, destination }: { readonly source: Side; readonly destination: Side },
    recorder: Recorder,
    { link, ...names }: { readonly vm: string; readonly to: string; readonly link: Pick<LinkWatch, 'take'> },
  ) {
    this.#recorder = recorder;
    this.#names = names;
    this.#link = link;
    this.#subscriptions = [
      source.rpc.onNotification('source.sample', (sample: SourceSample) => this.#take(sample)),
      destination.rpc.onNotification('destination.sample', (sample: DestinationSample) => {
        this.restored = sample;
      }),
    ];
  }

  [Symbol.dispose](): void {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
  }

  /** What the link has lately shown it can take. */
  get linkBytesPerSecond(): number {
    return this.#meter.capacityBytesPerSecond;
  }

  /** Whether the relays are connected, as far as the source knows. */
  get isConnected(): boolean {
    return this.latest?.isConnected ?? true;
  }

  async until(isReached: (sample: SourceSample) => boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      if (this.latest !== null && isReached(this.latest)) return;
      await new Promise<void>((wake) => {
        this.#wake = wake;
        setTimeout(wake, 1000).unref();
      });
    }
  }

  #take(sample: SourceSample): void {
    this.latest = sample;
    this.#meter.add(sample.takenAtMs, sample.bytesOnWire, sample.counters.pages.seen);
    const { zero, teleported, sent, mismatched } = sample.counters.pages;
    const restored = this.restored?.counters;
    const leftBytes = (sample.remaining?.bytesPages ?? 0) * pageBytes;
    const isConnected = sample.isConnected ?? true;
    if (this.restored !== null)
      this.#delivery.add(this.restored.takenAtMs, this.restored.bytesOnWire, isConnected ? leftBytes : 0);
    const arriving = this.#delivery.bytesPerSecond;
    this.#tellOfLink(isConnected);
    const pull = this.#pullProgress(sample);
    this.#recorder.sample({
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
      etaMs: arriving === null ? null : Math.round((leftBytes / arriving) * 1000),
    });
    this.#wake();
  }

  #pullProgress({ remaining, reconnects }: SourceSample): PullProgress | null {
    if (this.runsSinceMs === null) return null;
    return {
      runningMs: Math.round(this.#recorder.elapsedMs - this.runsSinceMs),
      neededBytes: (remaining?.bytesPages ?? 0) * pageBytes,
      missingPages: this.restored?.missingPages ?? 0,
      faults: this.restored?.faults ?? null,
      isConnected: this.#isConnected,
      reconnects,
    };
  }

  #tellOfLink(isConnected: boolean): void {
    if (this.commit === 'before') return this.#link.take({ isConnected });
    if (isConnected === this.#isConnected) return;
    this.#isConnected = isConnected;
    const { vm, to } = this.#names;
    if (isConnected) this.#recorder.notice('info', 'VMMIG_LINK_LOST', 'the relays are connected again');
    else
      this.#recorder.notice(
        'warn',
        'VMMIG_LINK_LOST',
        this.commit === 'done'
          ? `the link was lost: ${vm} runs on ${to} and waits for memory that is not there yet; trying again`
          : `the link was lost while ${vm} was being handed over to ${to}; trying again`,
      );
  }
}
