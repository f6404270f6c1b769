/**
 * How fast the link carries frames, told by when they arrive. A window that is too small makes a link look slow, which must
 * not make the window smaller still: that frames took long shows that the link takes no more, and that they did not, while
 * more would have been sent, that it may.
 */

import { Extreme } from '../link/extreme.js';

/** A destination that was busy receives what has waited for it all at once. */
const measureMs = 200;
/** With less under way the link has next to nothing to do. */
const busyBytes = 64 * 1024;
/** How fast a speed that is not seen again is forgotten, each measurement. */
const forgetting = 0.85;
/** How fast more is tried, each measurement. */
const trying = 1.25;
/** The destination may be what takes long: that much more than arrives is tried at most. */
const mostTried = 2;

/** The best is forgotten after one to two of these. */
const bestMemoryMs = 60_000;

export class LinkSpeed {
  readonly #now: () => number;
  /** Sent and not received: where each ends in all that was sent, and since when. */
  readonly #underWay: { readonly endBytes: number; readonly sentAtMs: number }[] = [];
  #sentBytes = 0;
  #receivedBytes = 0;
  #bytesPerMs = 0;
  readonly #best = new Extreme(Math.max, bestMemoryMs);
  #measuredAtMs: number;
  #measuredBytes = 0;
  /** Since the last measurement. */
  #leastUnreceivedBytes = 0;
  #longestMs = 0;
  #isHeldBack = false;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#measuredAtMs = now();
  }

  /** What the link has lately taken, or would; 0 before that is known. */
  get bytesPerMs(): number {
    return this.#bytesPerMs;
  }

  /** The most that has arrived of late; 0 before that is known. */
  get bestBytesPerMs(): number {
    return this.#best.value ?? 0;
  }

  /** Sent from the beginning. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  sent(frameBytes: number): void {
    this.#sentBytes += frameBytes;
    this.#underWay.push({ endBytes: this.#sentBytes, sentAtMs: this.#now() });
  }

  /** More could have been sent. */
  heldBack(): void {
    this.#isHeldBack = true;
  }

  /**
   * @param unreceivedBytes - that the destination's relay has not received yet
   * @param dueMs - so long a frame takes that had as much before it as is meant to be under way
   * @returns whether there is a new measurement
   */
  received(unreceivedBytes: number, dueMs: number): boolean {
    const nowMs = this.#now();
    this.#receivedBytes = Math.max(this.#receivedBytes, this.#sentBytes - unreceivedBytes);
    this.#leastUnreceivedBytes = Math.min(this.#leastUnreceivedBytes, unreceivedBytes);
    while (this.#underWay.length > 0) {
      const { endBytes, sentAtMs } = this.#underWay[0]!;
      this.#longestMs = Math.max(this.#longestMs, nowMs - sentAtMs);
      if (endBytes > this.#receivedBytes) break;
      this.#underWay.shift();
    }
    if (nowMs - this.#measuredAtMs < measureMs) return false;
    this.#measure((this.#receivedBytes - this.#measuredBytes) / (nowMs - this.#measuredAtMs), dueMs);
    this.#measuredAtMs = nowMs;
    this.#measuredBytes = this.#receivedBytes;
    this.#leastUnreceivedBytes = unreceivedBytes;
    this.#longestMs = 0;
    this.#isHeldBack = false;
    return true;
  }

  #measure(seen: number, dueMs: number): void {
    const known = this.#bytesPerMs;
    this.#best.add(seen, this.#now());
    const isLate = this.#longestMs > dueMs;
    const wasBusy = this.#leastUnreceivedBytes >= busyBytes;
    const tried = this.#isHeldBack && !isLate ? Math.min(known * trying, seen * mostTried) : 0;
    this.#bytesPerMs = Math.max(seen, isLate && wasBusy ? known * forgetting : known, tried);
  }
}
