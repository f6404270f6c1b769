/**
 * When the guest's agent is asked again during pre-copy, and for how long its answer is worth waiting for.
 *
 * The rule: while the agent scans, QEMU is not told that it may stop the guest, because what the scan finds need not be sent;
 * but for a second at most. A scan that takes longer is given up as soon as the guest can be stopped. And all scans
 * together take a fifth of the time at most. So a guest that is too busy for its agent moves no later than one without.
 */

/** Scans cost the guest time: there is this much between two of them at least, */
const leastIntervalMs = 2_000;
/** and so many times as long as the last one took. */
const restFactor = 4;
/** An agent that has processor time answers in a fraction of this. */
const holdsUpMs = 1_000;
/** A scan dirties some of the guest's memory itself: it has to save more than that. */
const worthBytes = 32 * 1024 * 1024;

export class Rescans {
  #beganAtMs: number | null = null;
  #nextAtMs: number;

  /** @param atMs - when the first scan had ended */
  constructor(atMs: number) {
    this.#nextAtMs = atMs + leastIntervalMs;
  }

  /** The first pass sends everything once: nothing comes twice before its end. */
  isDue(atMs: number, { dirtySyncCount, remainingBytes }: { dirtySyncCount: number; remainingBytes: number }): boolean {
    return this.#beganAtMs === null && atMs >= this.#nextAtMs && dirtySyncCount >= 2 && remainingBytes >= worthBytes;
  }

  /** The guest is not to be stopped yet. */
  holdsUp(atMs: number): boolean {
    return this.#beganAtMs !== null && atMs - this.#beganAtMs < holdsUpMs;
  }

  began(atMs: number): void {
    this.#beganAtMs = atMs;
  }

  /** Answered, failed, or given up. */
  ended(atMs: number): void {
    const tookMs = atMs - (this.#beganAtMs ?? atMs);
    this.#beganAtMs = null;
    this.#nextAtMs = atMs + Math.max(leastIntervalMs, restFactor * tookMs);
  }
}
