/** Ranges of pages that are wanted before the others: the first one comes first. */
import type { PageRange } from './rangeStack.js';

export class RangeQueue {
  #ranges: readonly PageRange[] = [];
  #at = 0;

  /** In place of those before. */
  set(ranges: readonly PageRange[]): void {
    this.#ranges = ranges;
    this.#at = 0;
  }

  /** The unsent end of the first range that has unsent pages. */
  next(): PageRange | null {
    for (; this.#at < this.#ranges.length; this.#at++) {
      const { block, page, end } = this.#ranges[this.#at]!;
      const first = block.nextUnsent(page, end);
      if (first < end) return { block, page: first, end };
    }
    return null;
  }

  /** From the beginning. */
  restart(): void {
    this.#at = 0;
  }
}
