/**
 * Whether pre-copy gets anywhere: from pass to pass less has to be dirty, or the guest writes faster than the link takes.
 * Told after two or three passes, not when somebody's patience has ended.
 */

export interface PassView {
  readonly atMs: number;
  /** Times QEMU has been through the guest's memory. */
  readonly dirtySyncCount: number;
  readonly remainingBytes: number;
  /** Whether the guest could be stopped now as promised: looked at when a pass begins. */
  readonly fits: boolean;
  /** As QEMU measured it; null before. */
  readonly dirtyBytesPerSecond: number | null;
  /** Bytes of memory, not of the wire, that the link takes. */
  readonly takesBytesPerSecond: number;
}

export interface Verdict {
  readonly passes: number;
  readonly dirtyBytesPerSecond: number;
  readonly takesBytesPerSecond: number;
  /** When the latest pass began. */
  readonly remainingBytes: number;
}

/** A pass that leaves more than this of what the one before left is none that helps. */
const helps = 0.93;
/** What is written twice in a pass is counted once: the rate is never far above what the link takes. */
const nearly = 0.85;
/** Shorter passes are too many, and too much at random, to be judged one by one: they are taken together. */
const roundMs = 1_000;
/** Rounds in a row that have not helped, of a guest that writes as fast as the link takes, and of another one. */
const enoughWhenOutrun = 2;
const enough = 3;
/** Before that another one is not given up. */
const patienceMs = 8_000;
/** Of a guest that writes now more, now less, rounds since one left less than any before. */
const enoughInAll = 12;

export class Convergence {
  #syncs = 0;
  /** The pass that has begun, as long as it is not judged. */
  #begun: PassView | null = null;
  #roundBeganAtMs = 0;
  /** Of what was left whenever a pass began, the least of this round and of the one before. */
  #least = Number.POSITIVE_INFINITY;
  #leastBefore = Number.POSITIVE_INFINITY;
  #useless = 0;
  /** Of all rounds, and those that came after it. */
  #leastOfAll = Number.POSITIVE_INFINITY;
  #roundsSince = 0;
  #fitAtMs: number | null = null;

  /** @returns what is the matter, once that is certain; null before */
  add(view: PassView): Verdict | null {
    if (view.dirtySyncCount < 2) return null;
    this.#fitAtMs ??= view.atMs;
    const begun = this.#begun;
    if (view.dirtySyncCount === this.#syncs) {
      // QEMU counts a pass before it has looked, and for that long tells what was left of the one before.
      if (begun === null || view.remainingBytes === begun.remainingBytes) return null;
      this.#begun = view.remainingBytes > begun.remainingBytes ? view : null;
      return this.#begun === null ? this.#judge(begun) : null;
    }
    this.#syncs = view.dirtySyncCount;
    this.#begun = view;
    return begun === null ? null : this.#judge(begun);
  }

  /** Towards the end of a pass little is left of any guest; what counts is what the next one begins with. */
  #judge({ atMs, dirtySyncCount, remainingBytes, fits, takesBytesPerSecond, ...view }: PassView): Verdict | null {
    if (fits) [this.#fitAtMs, this.#useless, this.#roundsSince] = [atMs, 0, 0];
    const roundLastedMs = atMs - this.#roundBeganAtMs;
    this.#least = Math.min(this.#least, remainingBytes);
    if (roundLastedMs < roundMs && this.#leastBefore !== Number.POSITIVE_INFINITY) return null;
    const isUseless = !fits && this.#least > helps * this.#leastBefore;
    this.#useless = isUseless ? this.#useless + 1 : 0;
    this.#roundsSince = this.#least > helps * this.#leastOfAll ? this.#roundsSince + 1 : 0;
    this.#leastOfAll = Math.min(this.#leastOfAll, this.#least);
    [this.#leastBefore, this.#least, this.#roundBeganAtMs] = [this.#least, Number.POSITIVE_INFINITY, atMs];
    const dirtyBytesPerSecond = view.dirtyBytesPerSecond ?? 0;
    const isCertain =
      this.#roundsSince >= enoughInAll ||
      (dirtyBytesPerSecond >= nearly * takesBytesPerSecond
        ? this.#useless >= enoughWhenOutrun
        : this.#useless >= enough && atMs - this.#fitAtMs! >= patienceMs);
    if (!isCertain) return null;
    return { passes: dirtySyncCount - 1, dirtyBytesPerSecond, takesBytesPerSecond, remainingBytes };
  }

  /** Something was done about it: begins anew. */
  reset(): void {
    this.#begun = null;
    this.#least = this.#leastBefore = this.#leastOfAll = Number.POSITIVE_INFINITY;
    this.#useless = this.#roundsSince = 0;
    this.#fitAtMs = null;
  }
}
