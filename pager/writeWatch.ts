/**
 * Which pages a guest keeps writing to, where nobody has a log of it: memory is looked at twice, in groups, and what has
 * changed is looked at page by page from then on. Most of what a guest has it does not write to for minutes, and what it
 * has just written it will read at once when it goes on.
 */
import { type CaptureBlock, pageKind } from './captureBlock.js';
import { groupPages, pageBytes } from './pageGroups.js';
import { type Digester, isZero } from './pageTeller.js';
import type { PageRange } from './rangeStack.js';

/** Some 5 ms each time. A guest that has more in use is known in part. */
const limitPages = 8192;
const digestBytes = 16;

interface WatchedGroup {
  readonly block: CaptureBlock;
  readonly page: number;
  readonly count: number;
  digest: Buffer;
  /** Of its pages, once it has been seen to change. */
  pages: Buffer[] | null;
}

export interface WrittenPage {
  readonly block: number;
  readonly page: number;
}

export class WriteWatch {
  readonly #groups: WatchedGroup[] = [];
  readonly #written = new Map<string, WrittenPage>();
  readonly #bytes = Buffer.allocUnsafeSlow(groupPages * pageBytes);
  #seenPages = 0;
  /** What is looked at, and where the first look is. */
  #ranges: readonly PageRange[];
  #at = { range: 0, page: 0 };
  /** Where the second look is. */
  #next = 0;

  constructor(
    blocks: readonly CaptureBlock[],
    private readonly digester: Digester,
  ) {
    this.#ranges = blocks.map((block) => ({ block, page: 0, end: block.pages }));
  }

  /** Where to look, instead of everywhere; as long as nothing has been looked at. */
  favour(ranges: readonly PageRange[]): void {
    if (this.#seenPages === 0 && ranges.length > 0) this.#ranges = ranges;
  }

  /**
   * Looks on, for so long at most.
   * @returns whether there is more to look at; if not, all that was seen to change has been looked at once more
   */
  look(timeMs: number): boolean {
    const untilMs = performance.now() + timeMs;
    do {
      if (!this.#lookFirst() && !this.#lookAgain()) {
        for (const group of this.#groups) if (group.pages !== null) this.#compare(group, group.pages);
        return false;
      }
    } while (performance.now() < untilMs);
    return true;
  }

  /** What was written between two looks, what was found last first. */
  get written(): WrittenPage[] {
    return [...this.#written.values()].reverse();
  }

  #lookFirst(): boolean {
    const range = this.#ranges[this.#at.range];
    if (range === undefined || this.#seenPages >= limitPages) return false;
    const { block, end } = range;
    const page = Math.max(this.#at.page, range.page);
    if (page >= end) {
      this.#at = { range: this.#at.range + 1, page: 0 };
      return true;
    }
    const count = Math.min(groupPages, end - page);
    this.#at.page = page + count;
    if (this.#read(block, page, count)) {
      this.#seenPages += count;
      this.#groups.push({ block, page, count, digest: this.#digest(0, count), pages: null });
    }
    return true;
  }

  #lookAgain(): boolean {
    const group = this.#groups[this.#next];
    if (group === undefined) return false;
    this.#next++;
    group.block.read(group.page, group.count, this.#bytes);
    const digest = this.#digest(0, group.count);
    if (!digest.equals(group.digest)) group.pages = Array.from({ length: group.count }, (_, at) => this.#digest(at, 1));
    return true;
  }

  #compare({ block, page, count }: WatchedGroup, pages: Buffer[]): void {
    block.read(page, count, this.#bytes);
    for (const [at, before] of pages.entries()) {
      const now = this.#digest(at, 1);
      if (now.equals(before)) continue;
      pages[at] = now;
      const key = `${block.index}:${page + at}`;
      this.#written.delete(key);
      this.#written.set(key, { block: block.index, page: page + at });
    }
  }

  /** @returns false for what is told in another way, or is empty */
  #read(block: CaptureBlock, page: number, count: number): boolean {
    let isOfUse = false;
    for (let at = page; at < page + count && !isOfUse; at++) isOfUse = block.kindOf(at) === pageKind.bytes;
    if (!isOfUse) return false;
    block.read(page, count, this.#bytes);
    for (let at = 0; at < count; at++) if (!isZero(this.#bytes, at * pageBytes)) return true;
    return false;
  }

  #digest(page: number, count: number): Buffer {
    const bytes = this.#bytes.subarray(page * pageBytes, (page + count) * pageBytes);
    return Buffer.from(this.digester.digest(bytes).subarray(0, digestBytes));
  }
}
