/**
 * What is sent of memory files while the guest runs, ahead of QEMU's stream: the destination gets of them what the link
 * takes, and holds it. The guest may write to any of it afterwards, so that nothing is promised: what holds in the end
 * is told when it has stopped.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { RelayError } from '../../errors.js';
import { maxBatchPages } from '../../link/batch.js';
import type { FilePages } from '../filePages.js';
import { streamError } from '../streamError.js';
import type { BatchSender } from './batchSender.js';
import type { SwitchLink } from './switchLink.js';

export interface AheadHandlers {
  /** There may be more to send. */
  pump(): void;
  /** The same, but not at once. */
  pumpSoon(): void;
  failed(error: RelayError): void;
  /** Nothing is sent any more. */
  hasEnded(): boolean;
}

/** So long after all has been sent, what has changed since is. */
const againIntervalMs = 1000;
/** TCP, and the window for bulk data, begin with little and double that each round trip. */
const warmUpRoundTrips = 6;
const warmUpPollMs = 2;
const watchIntervalMs = 50;
/** Digesting memory, before anything else is looked at again: at first, when that is waited for, and afterwards. */
const maxTurnMs = { first: 8, later: 2 };

export class AheadOfStream implements AsyncDisposable {
  readonly #files: FilePages;
  readonly #batches: BatchSender;
  readonly #link: Pick<SwitchLink, 'rttMs' | 'isFree'>;
  readonly #handlers: AheadHandlers;
  readonly #released = new AbortController();
  #isOpen = false;
  #isAllSent = false;
  #isWatched = false;
  #sinceMs = 0;
  #surveyed: Promise<void> = Promise.resolve();
  #again: NodeJS.Timeout | undefined;
  #watching: NodeJS.Timeout | undefined;

  constructor(
    files: FilePages,
    batches: BatchSender,
    link: Pick<SwitchLink, 'rttMs' | 'isFree'>,
    handlers: AheadHandlers,
  ) {
    this.#files = files;
    this.#batches = batches;
    this.#link = link;
    this.#handlers = handlers;
  }

  /** All that can be sent has been, as far as the destination holds it. */
  get isAllSent(): boolean {
    return this.#isAllSent;
  }

  /** The destination has been told of the blocks: pages may follow. */
  begin(): void {
    this.#isOpen = true;
    this.#sinceMs = performance.now();
    // What it does not find before the guest stops is found when it is read.
    this.#surveyed = this.#files
      .survey(this.#released.signal)
      .catch((cause) => this.#handlers.failed(streamError(cause)));
    void this.#surveyed.then(() => this.#handlers.pump());
  }

  /** QEMU's stream begins, so that the guest will soon stop: from now on all of the files is sent, not only what is favoured. */
  beginAll(): void {
    this.#files.hintAll();
    this.#handlers.pump();
    void this.#surveyed.then(() => this.#watch());
  }

  /** @returns false when there was nothing, or nothing may be sent any more */
  send(): boolean {
    if (!this.#isOpen || this.#files.awaitsAll) return false;
    if (this.#files.isHinted) {
      this.#isAllSent = true;
      this.#again ??= setTimeout(() => {
        this.#again = undefined;
        this.#files.hintAgain();
        this.#handlers.pump();
      }, againIntervalMs);
      return false;
    }
    if (this.#batches.sendAhead(this.#files, maxBatchPages)) return true;
    // There may be a lot of memory with nothing in it.
    this.#handlers.pumpSoon();
    return false;
  }

  /** Resolves when the line is known: what the guest then waits for crosses it at full speed. */
  async warmedUp(signal: AbortSignal): Promise<void> {
    const sinceMs = this.#sinceMs;
    const isWarm = () => this.#isAllSent || performance.now() - sinceMs >= warmUpRoundTrips * this.#link.rttMs;
    while (!this.#handlers.hasEnded() && !(isWarm() && this.#isWatched))
      await delay(warmUpPollMs, undefined, { signal });
  }

  /** Nothing is to queue before what the guest then waits for. Resolves when the line is free. */
  async end(signal: AbortSignal): Promise<void> {
    this.stop();
    clearTimeout(this.#watching);
    this.#files.watch(maxTurnMs.later);
    while (!this.#handlers.hasEnded() && !this.#link.isFree) await delay(warmUpPollMs, undefined, { signal });
  }

  /** Sends nothing from now on. */
  stop(): void {
    this.#isOpen = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#released.abort();
    clearTimeout(this.#again);
    clearTimeout(this.#watching);
    await this.#surveyed;
  }

  /** Looks for what the guest keeps writing to, a little at a time. */
  #watch(): void {
    if (!this.#isOpen || this.#handlers.hasEnded()) return;
    this.#isWatched ||= !this.#files.watch(maxTurnMs.first);
    this.#watching = setTimeout(() => this.#watch(), this.#isWatched ? watchIntervalMs : 0);
  }
}
