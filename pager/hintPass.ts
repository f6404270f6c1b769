/** Goes through the memory of a guest that still runs, and puts in batches what the destination had best know already. */
import { type CaptureBlock, pageKind } from './captureBlock.js';
import { groupPages, pageBytes } from './pageGroups.js';
import { isZero, type PageBatch } from './pageTeller.js';
import type { PageRange } from './rangeStack.js';

/** A call takes a millisecond or two at most. */
const maxPagesRead = 1024;
/** Some of what is favoured is page cache, which need not be sent: before it is known which, no more than this goes out. */
const maxBlindPages = 4096;

export interface HintPassOptions {
  /** Of the destination's memory. */
  readonly limitBytes: number;
  /** Only what is favoured is hinted until it is known what is page cache. */
  readonly awaitsCache?: boolean;
  /** Each block from its end. */
  readonly isBackwards?: boolean;
  /** What is not worth it any more. */
  readonly isPast?: (block: CaptureBlock, group: number) => boolean;
}

export class HintPass {
  readonly #limitBytes: number;
  /** With so many pages hinted there is no room for more, or there was none for the next ones. */
  #noRoomFrom: number;
  readonly #isBackwards: boolean;
  readonly #isPast: (block: CaptureBlock, group: number) => boolean;
  readonly #bytes = Buffer.allocUnsafeSlow(groupPages * pageBytes);
  #block = 0;
  #group = 0;
  /** What is worth more than the rest. */
  readonly #favoured: { readonly block: CaptureBlock; readonly group: number; readonly page: number }[] = [];
  #nextFavoured = 0;
  #isOpen: boolean;
  /** Of what may be page cache. */
  #blindPages = 0;
  #isBlind: boolean;

  constructor(
    private readonly blocks: readonly CaptureBlock[],
    private readonly changed: (block: CaptureBlock, group: number) => void,
    { limitBytes, awaitsCache = false, isBackwards = false, isPast = () => false }: HintPassOptions,
  ) {
    this.#limitBytes = limitBytes;
    this.#noRoomFrom = Math.floor(limitBytes / pageBytes);
    this.#isOpen = !awaitsCache;
    this.#isBlind = awaitsCache;
    this.#isBackwards = isBackwards;
    this.#isPast = isPast;
  }

  /** All groups have been visited. */
  get isOver(): boolean {
    return this.#limitBytes < pageBytes || this.#block >= this.blocks.length;
  }

  /** The groups of these pages go first, in this order; in place of those before. */
  favour(ranges: readonly PageRange[]): void {
    const known = new Map<CaptureBlock, Set<number>>();
    this.#favoured.length = this.#nextFavoured = 0;
    for (const { block, page, end } of ranges) {
      const groups = known.get(block) ?? new Set();
      known.set(block, groups);
      for (let group = Math.floor(page / groupPages); group * groupPages < end; group++) {
        if (groups.has(group)) continue;
        groups.add(group);
        this.#favoured.push({ block, group, page: Math.max(page, group * groupPages) });
      }
    }
  }

  /** Favoured, and not visited yet. */
  get favouredGroups(): number {
    return this.isOver ? 0 : this.#favoured.length - this.#nextFavoured;
  }

  /** It is known now what is page cache. */
  knowCache(): void {
    this.#isBlind = false;
  }

  /** That, and what else there is to be hinted. */
  open(): void {
    this.#isOpen = true;
    this.knowCache();
  }

  /** Only what is favoured from now on. */
  close(): void {
    this.#isOpen = false;
  }

  /** There is nothing to do, unless it is opened. */
  get isWaiting(): boolean {
    return !this.#isOpen && this.#nextGroup === undefined;
  }

  get #nextGroup(): { readonly block: CaptureBlock; readonly group: number; readonly page: number } | undefined {
    return this.#isBlind && this.#blindPages >= maxBlindPages ? undefined : this.#favoured[this.#nextFavoured];
  }

  restart(): void {
    this.#block = this.#group = this.#nextFavoured = 0;
  }

  /** @returns how many pages were put in the batch; 0 may mean that there was none among the next ones */
  fill(batch: PageBatch, limitPages: number): number {
    let pages = 0;
    for (
      let read = 0;
      !this.isOver && read < maxPagesRead && pages + groupPages <= limitPages && !batch.isFull;
      read += groupPages
    ) {
      const favoured = this.#nextGroup;
      if (favoured !== undefined) {
        this.#nextFavoured++;
        const hinted = this.#hint(favoured.block, favoured.group, batch, favoured.page);
        if (this.#isBlind) this.#blindPages += hinted;
        pages += hinted;
        continue;
      }
      if (!this.#isOpen) break;
      const block = this.blocks[this.#block]!;
      const { groups } = block.hints;
      if (this.#group < groups) {
        const group = this.#isBackwards ? groups - 1 - this.#group : this.#group;
        this.#group++;
        pages += this.#hint(block, group, batch);
      } else {
        this.#block++;
        this.#group = 0;
      }
    }
    return pages;
  }

  /** @param wanted - of the pages that can be hinted together these */
  #hint(block: CaptureBlock, group: number, batch: PageBatch, wanted: number | null = null): number {
    const { hints } = block;
    const isHeld = hints.countOf(group) > 0;
    if (this.#isPast(block, group)) return 0;
    if (!isHeld && this.#heldPages() >= this.#noRoomFrom) return 0;
    const first = group * groupPages;
    const end = Math.min(block.pages, first + groupPages);
    let { page, count } =
      wanted !== null && block.kindOf(wanted) === pageKind.bytes
        ? stretchAround(block, wanted, first, end)
        : longestStretch(block, first, end);
    if (count > 0) block.read(page, count, this.#bytes);
    let start = 0;
    while (count > 0 && isZero(this.#bytes, start)) {
      start += pageBytes;
      page++;
      count--;
    }
    while (count > 0 && isZero(this.#bytes, start + (count - 1) * pageBytes)) count--;
    if (count === 0) {
      hints.clear(group);
      return 0;
    }
    if (isHeld) {
      if (hints.isSame(group, page - first, count, this.#bytes, start)) return 0;
      this.changed(block, group);
      hints.clear(group);
    }
    const heldPages = this.#heldPages();
    if ((heldPages + count) * pageBytes > this.#limitBytes) {
      // Not one by one, until there is room for no page.
      this.#noRoomFrom = Math.min(this.#noRoomFrom, heldPages);
      return 0;
    }
    hints.set(group, page - first, count, this.#bytes, start);
    for (let at = 0; at < count; at++) batch.addPage(block.index, page + at, this.#bytes, start + at * pageBytes);
    return count;
  }

  #heldPages(): number {
    let pages = 0;
    for (const { hints } of this.blocks) pages += hints.pages;
    return pages;
  }
}

/** Of pages that will be told as bytes. */
function longestStretch(block: CaptureBlock, from: number, to: number): { page: number; count: number } {
  let page = from;
  let count = 0;
  for (let at = from; at < to; ) {
    let end = at;
    while (end < to && block.kindOf(end) === pageKind.bytes) end++;
    if (end - at > count) {
      page = at;
      count = end - at;
    }
    at = end + 1;
  }
  return { page, count };
}

/** Likewise, those that a page lies among. */
function stretchAround(block: CaptureBlock, wanted: number, from: number, to: number): { page: number; count: number } {
  const isBytes = (page: number) => block.kindOf(page) === pageKind.bytes;
  let page = wanted;
  while (page > from && isBytes(page - 1)) page--;
  let end = wanted + 1;
  while (end < to && isBytes(end)) end++;
  return { page, count: end - page };
}
