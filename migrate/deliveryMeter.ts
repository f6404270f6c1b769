/**
 * How fast bytes arrive at the destination, over some seconds: for telling how long the rest will take. What the source writes
 * goes in leaps into its kernel's buffers, and what is acknowledged has waited for what was sent before it.
 */

interface Stretch {
  readonly ms: number;
  readonly bytes: number;
}

/** Of a link that changes, what is longer ago says little. */
const windowMs = 5_000;
/** Before so long, and so much, it may be TCP's beginning, or the greetings: a speed that means hours. */
const leastMs = 500;
const leastBytes = 256 * 1024;
/** With less under way the link has next to nothing to do, which says nothing against it. */
const busyBytes = 64 * 1024;

export class DeliveryMeter {
  /** In which the link was busy. */
  #stretches: Stretch[] = [];
  #ms = 0;
  #bytes = 0;
  #last: { readonly atMs: number; readonly arrivedBytes: number; readonly isBusy: boolean } | null = null;

  /**
   * @param atMs - when it was so, by any clock that only counts; the same again is not counted twice
   * @param arrivedBytes - from the beginning
   * @param underWayBytes - sent, and not there yet; 0 while the link is cut
   */
  add(atMs: number, arrivedBytes: number, underWayBytes: number): void {
    const isBusy = underWayBytes >= busyBytes;
    const last = this.#last;
    if (atMs === last?.atMs) return;
    this.#last = { atMs, arrivedBytes, isBusy };
    if (last === null || !last.isBusy || !isBusy) return;
    const stretch = { ms: atMs - last.atMs, bytes: arrivedBytes - last.arrivedBytes };
    // Another service at the destination counts from its own beginning.
    if (stretch.ms > 0 && stretch.bytes >= 0) this.#push(stretch);
  }

  /** Null before it is known. */
  get bytesPerSecond(): number | null {
    return this.#ms < leastMs || this.#bytes < leastBytes ? null : (this.#bytes / this.#ms) * 1000;
  }

  #push(stretch: Stretch): void {
    this.#stretches.push(stretch);
    this.#ms += stretch.ms;
    this.#bytes += stretch.bytes;
    while (this.#ms - this.#stretches[0]!.ms >= windowMs) {
      const { ms, bytes } = this.#stretches.shift()!;
      this.#ms -= ms;
      this.#bytes -= bytes;
    }
  }
}
