/**
 * What is under way to the destination, and how much may be. Two bounds: the bytes on the link, which
 * follow the link's measured speed so that QEMU's stream never runs far ahead of the network, and the
 * pages kept until the destination has found them on its disk.
 */

import type { RunInPlace } from '../link/hints.js';
import { LinkSpeed } from './linkSpeed.js';

export interface RetainedRun {
  readonly block: number;
  readonly page: number;
  readonly count: number;
  readonly bytes: Buffer;
}

export interface ReferredRun extends RetainedRun {
  readonly digest: Buffer;
  /** It was sent ahead: no disk has it. */
  readonly isHeld?: true;
}

interface Outstanding {
  readonly frameBytes: number;
  retainedBytes: number;
  /** References by their record's index in the batch. */
  readonly retained: Map<number, ReferredRun>;
  /** Those of them that were asked for. */
  readonly resent: Set<number>;
}

const minWindowBytes = 128 * 1024;
const maxWindowBytes = 48 * 1024 * 1024;
/** Before anything was measured; TCP's own start keeps the link from being flooded. */
const initialWindowBytes = 4 * 1024 * 1024;
/** What QEMU reads in a third of a second: while the link is busy with bytes, the page cache behind them is gone through. */
export const maxRetainedBytes = 96 * 1024 * 1024;
/** Once the guest may be stopped at any moment: it waits until that has been read at the destination. */
const maxLateRetainedBytes = 32 * 1024 * 1024;
/** In the first pass, see {@link SendWindow.runsAhead}. */
const firstPassWindowBytes = 32 * 1024 * 1024;
/** The queue that the window lets stand in the network, beyond the round trip itself. */
const firstPassQueueMs = 100;
/** Later on the guest may be stopped at any moment, and then it waits for the queue. */
const queueMs = 20;
/** Room to find out that the link takes more. */
const growth = 1.5;
/** So long the window has to be as small as it gets before long round trips are the way's. */
const longerWayMs = 3000;
/** They are not what it takes to send the window as fast as the link has lately gone, nor so many times that. */
const unexplained = 4;
/** While TCP finds the link's speed, measurements are too low. */
const startMs = 1000;

export class SendWindow {
  readonly #outstanding = new Map<number, Outstanding>();
  /** Where those of the first pass are, by their first page. */
  readonly #ofFirstPass = new Map<number, { readonly entry: Outstanding; readonly record: number }>();
  #frameBytes = 0;
  #retainedBytes = 0;
  #windowBytes = initialWindowBytes;
  readonly #speed = new LinkSpeed();
  /** When the first frame was sent. */
  #startedAtMs = Number.POSITIVE_INFINITY;
  /** What is sent from now on QEMU sends for the first time. */
  isFirstPass = false;
  #runsAhead = false;
  #rttMs = 0;
  #starvedSinceMs: number | null = null;

  /**
   * Whether QEMU is sure not to stop the guest yet. What waits for the link then is nothing that a newer version could make
   * useless, and going on finds what costs the link nothing. Later on the guest waits for all that has not arrived.
   */
  set runsAhead(runsAhead: boolean) {
    if (runsAhead === this.#runsAhead) return;
    this.#runsAhead = runsAhead;
    this.#resize();
  }

  get isOpen(): boolean {
    const limitBytes = this.#runsAhead ? Math.max(this.#windowBytes, firstPassWindowBytes) : this.#windowBytes;
    const keptBytes = this.#runsAhead ? maxRetainedBytes : maxLateRetainedBytes;
    return this.#frameBytes < limitBytes && this.#retainedBytes < keptBytes;
  }

  /** What the link has lately taken; 0 before that is known. */
  get bytesPerMs(): number {
    return this.#speed.bytesPerMs;
  }

  get isEmpty(): boolean {
    return this.#outstanding.size === 0;
  }

  /** Sent, and not yet acknowledged. */
  get frameBytes(): number {
    return this.#frameBytes;
  }

  /** Sent from the beginning, acknowledged or not. */
  get allFramesBytes(): number {
    return this.#speed.sentBytes;
  }

  add(sequence: number, frameBytes: number, retained: ReadonlyMap<number, ReferredRun>): void {
    const entry = { frameBytes, retainedBytes: 0, retained: new Map(retained), resent: new Set<number>() };
    for (const [record, run] of retained) {
      entry.retainedBytes += memoryBytes(run);
      if (this.isFirstPass) this.#ofFirstPass.set(placeOf(run), { entry, record });
    }
    this.#startedAtMs = Math.min(this.#startedAtMs, performance.now());
    this.#outstanding.set(sequence, entry);
    this.#frameBytes += frameBytes;
    this.#speed.sent(frameBytes);
    this.#retainedBytes += entry.retainedBytes;
    if (this.#frameBytes >= this.#windowBytes) this.#speed.heldBack();
  }

  /**
   * @param unreceivedBytes - that the destination's relay has not received yet, in place or not
   * @param rttMs - the smallest, and the smallest of late
   * @returns whether the way must have become longer: the window is small for nothing
   */
  received(unreceivedBytes: number, rttMs: { readonly smallest: number; readonly recent: number }): boolean {
    this.#rttMs = rttMs.smallest;
    if (this.#speed.received(unreceivedBytes, this.#dueMs)) this.#resize();
    const isStarved =
      this.#windowBytes === minWindowBytes &&
      rttMs.recent > this.#dueMs + unexplained * (minWindowBytes / this.#speed.bestBytesPerMs);
    const nowMs = performance.now();
    this.#starvedSinceMs = isStarved ? (this.#starvedSinceMs ?? nowMs) : null;
    return isStarved && nowMs - this.#starvedSinceMs! > longerWayMs;
  }

  /** @returns the runs that need not be kept any longer; null when no such frame was under way */
  acknowledge(sequence: number): Iterable<ReferredRun> | null {
    const entry = this.#outstanding.get(sequence);
    if (entry === undefined) return null;
    this.#outstanding.delete(sequence);
    this.#frameBytes -= entry.frameBytes;
    this.#retainedBytes -= entry.retainedBytes;
    for (const run of entry.retained.values())
      if (this.#ofFirstPass.get(placeOf(run))?.entry === entry) this.#ofFirstPass.delete(placeOf(run));
    return entry.retained.values();
  }

  /**
   * The destination has a run, though its reference may still be on the way there. Of the first pass, in which no page comes
   * twice: nothing that could replace it comes before its reference.
   * @returns what need not be kept any longer; null when that is nothing
   */
  release({ block, page, digest }: RunInPlace): ReferredRun | null {
    const found = this.#ofFirstPass.get(placeOf({ block, page }));
    const run = found?.entry.retained.get(found.record);
    if (found === undefined || run === undefined || !run.digest.equals(digest)) return null;
    if (found.entry.resent.has(found.record)) return null;
    this.#ofFirstPass.delete(placeOf(run));
    found.entry.retained.delete(found.record);
    found.entry.retainedBytes -= memoryBytes(run);
    this.#retainedBytes -= memoryBytes(run);
    return run;
  }

  /** The run to be sent as bytes after all; null when there is none, or it was asked for before. */
  takeForResend(sequence: number, record: number): ReferredRun | null {
    const entry = this.#outstanding.get(sequence);
    const run = entry?.retained.get(record);
    if (entry === undefined || run === undefined || entry.resent.has(record)) return null;
    entry.resent.add(record);
    return run;
  }

  /** So long it takes until what fills the window has arrived. */
  get #dueMs(): number {
    return growth * (this.#rttMs + (this.#runsAhead ? firstPassQueueMs : queueMs));
  }

  #resize(): void {
    const wanted = this.#speed.bytesPerMs * this.#dueMs;
    const isStarting = performance.now() - this.#startedAtMs < startMs;
    this.#windowBytes = Math.min(maxWindowBytes, Math.max(isStarting ? initialWindowBytes : minWindowBytes, wanted));
  }
}

/** What is kept of a run is kept whole. */
function memoryBytes({ bytes }: Pick<ReferredRun, 'bytes'>): number {
  return bytes.buffer.byteLength;
}

const pagesPerBlock = 2 ** 32;

function placeOf({ block, page }: Pick<ReferredRun, 'block' | 'page'>): number {
  return block * pagesPerBlock + page;
}
