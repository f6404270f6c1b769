/** Ranges of pages that are wanted before the others: the last one put in comes first. */
import type { CaptureBlock } from './captureBlock.js';

export interface PageRange {
  readonly block: CaptureBlock;
  readonly page: number;
  readonly end: number;
}

export class RangeStack {
  readonly #ranges: PageRange[] = [];

  /** @param maxRanges the oldest are forgotten beyond that */
  constructor(private readonly maxRanges: number) {}

  push(range: PageRange): void {
    this.#ranges.push(range);
    if (this.#ranges.length > 2 * this.maxRanges) this.#ranges.splice(0, this.maxRanges);
  }

  /** The unsent end of the first range that has unsent pages. */
  next(): PageRange | null {
    for (;;) {
      const range = this.#ranges.at(-1);
      if (range === undefined) return null;
      const { block, page, end } = range;
      const first = block.nextUnsent(page, end);
      if (first < end) return { block, page: first, end };
      this.#ranges.pop();
    }
  }

  clear(): void {
    this.#ranges.length = 0;
  }
}
