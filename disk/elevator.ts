/**
 * The order in which queued ranges are read: one sweep from low to high offsets, then again from the start (C-SCAN),
 * merging what is close together. The sweep only ever moves forward, so that no range waits longer than one sweep,
 * whatever keeps arriving. No I/O in here.
 */

/** A range waiting to be read. `offset` advances when a part of it has been handed out. */
export interface Waiting {
  offset: number;
  readonly end: number;
}

/** One read of the disk, and the parts of waiting ranges that it answers. */
export interface Batch<T extends Waiting> {
  readonly start: number;
  readonly end: number;
  readonly parts: { readonly waiting: T; readonly start: number; readonly end: number }[];
}

export interface ElevatorLimits {
  /** Longest read. */
  readonly maxReadBytes: number;
  /** Ranges at most this far apart are read together: reading over a small gap is cheaper than a second request. */
  readonly maxGapBytes: number;
}

export class Elevator<T extends Waiting> {
  /** Sorted by offset. */
  readonly #queue: T[] = [];
  readonly #limits: ElevatorLimits;
  #head = 0;

  constructor(limits: ElevatorLimits) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#queue.length;
  }

  add(waiting: T): void {
    const last = this.#queue.at(-1);
    if (last === undefined || last.offset <= waiting.offset) this.#queue.push(waiting);
    else this.#queue.splice(this.#firstAtOrAfter(waiting.offset + 1), 0, waiting);
  }

  /** The next read of this sweep, or undefined when nothing waits. */
  take(): Batch<T> | undefined {
    const queue = this.#queue;
    if (queue.length === 0) return undefined;
    let first = this.#firstAtOrAfter(this.#head);
    if (first === queue.length) first = 0;

    const start = queue[first]!.offset;
    const limit = start + this.#limits.maxReadBytes;
    const parts: Batch<T>['parts'] = [];
    let end = start;
    let next = first;
    while (next < queue.length) {
      const waiting = queue[next]!;
      const tooFar = next > first && waiting.offset > end + this.#limits.maxGapBytes;
      // A range that does not fit opens the next batch instead of being cut, unless it is too long for any.
      if (tooFar || (next > first && waiting.end > limit)) break;
      const partEnd = Math.min(waiting.end, limit);
      parts.push({ waiting, start: waiting.offset, end: partEnd });
      if (partEnd > end) end = partEnd;
      waiting.offset = partEnd;
      if (partEnd < waiting.end) break;
      next += 1;
    }
    this.#head = end;

    queue.splice(first, next - first);
    const cut = parts.at(-1)!.waiting;
    if (cut.offset < cut.end) {
      // It stands at the front of what is left, but its offset has moved on.
      queue.splice(first, 1);
      this.add(cut);
    }
    return { start, end, parts };
  }

  /** Takes everything out of the queue. */
  drain(): T[] {
    return this.#queue.splice(0);
  }

  #firstAtOrAfter(offset: number): number {
    let low = 0;
    let high = this.#queue.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#queue[middle]!.offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
