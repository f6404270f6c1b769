/** What is known of each page of a RAM block: whether QEMU has it, and whether it is zero. */
import type { RamBlock } from '../../../stream/handler.js';
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { lowestOne, PageBitmap } from './pageBitmap.js';

export interface PageRun {
  /** Place in the list of blocks. */
  readonly block: number;
  readonly page: number;
  readonly count: number;
}

/** A host page is put together in memory, and nothing overtakes it: gigantic pages are not for post-copy. */
const maxHostPageBytes = 32 * 2 ** 20;

/** The blocks as this stream announces them: with page sizes other than 4096 only, and without addresses. */
export function ownBlocks(blocks: readonly RamBlock[]): RamBlock[] {
  return blocks.map(({ name, lengthBytes, pageSizeBytes }, index) => {
    if ((pageSizeBytes ?? 0) > maxHostPageBytes)
      throw new RelayError('VMMIG_RELAY_STREAM', `${name} lies in pages of ${pageSizeBytes} bytes: too large`);
    return { name, index, lengthBytes, gpa: null, pageSizeBytes: pageSizeBytes === pageBytes ? null : pageSizeBytes };
  });
}

export class BlockPages {
  readonly block: RamBlock;
  readonly pages: number;
  /** Pages in a page of the host: 1, or more where huge pages back the block. */
  readonly pagesPerHostPage: number;
  /** QEMU has been given the latest version. */
  readonly placed: PageBitmap;
  /** The latest version is zero and not placed: QEMU's memory is zero where nothing is. */
  readonly zero: PageBitmap;
  /** QEMU was given some version before it began to ask. */
  readonly #written: PageBitmap;

  constructor(block: RamBlock) {
    this.block = block;
    this.pages = block.lengthBytes / pageBytes;
    this.pagesPerHostPage = (block.pageSizeBytes ?? pageBytes) / pageBytes;
    this.placed = new PageBitmap(this.pages);
    this.zero = new PageBitmap(this.pages);
    this.#written = new PageBitmap(this.pages);
  }

  /** Neither placed nor known to be zero. */
  get missing(): number {
    return this.pages - this.placed.count - this.zero.count;
  }

  setPlaced(page: number, count: number): void {
    this.placed.set(page, count);
    this.zero.clear(page, count);
  }

  setWritten(page: number, count: number): void {
    this.#written.set(page, count);
  }

  setZero(page: number, count: number): void {
    this.placed.clear(page, count);
    this.zero.set(page, count);
  }

  setMissing(page: number, count: number): void {
    this.placed.clear(page, count);
    this.zero.clear(page, count);
  }

  /**
   * The runs that QEMU has to drop before it begins to ask, as pairs of first page and count: everything that is not
   * placed, so that it is asked for, but for zero pages that were never written. Those go along where they lie between,
   * for the sake of fewer runs. (Dropping what was never written is not idle: a page placed next to it may have made the
   * kernel put in a whole transparent huge page.)
   *
   * Of a huge host page all pages are dropped or none; what was placed of it then counts as missing again.
   */
  stale(): number[] {
    if (this.pagesPerHostPage > 1) return this.#staleHostPages();
    return this.#runs(
      (word) => this.#staleIn(word),
      (word) => this.placed.words[word]!,
    );
  }

  /** First page and count of each run that is placed, ascending. */
  placedRuns(): Uint32Array {
    const runs: number[] = [];
    for (let from = this.placed.find(true, 0, this.pages); from < this.pages; ) {
      const to = this.placed.find(false, from, this.pages);
      runs.push(from, to - from);
      from = this.placed.find(true, to, this.pages);
    }
    return Uint32Array.from(runs);
  }

  missingRuns(): PageRun[] {
    const present = (word: number) => this.placed.words[word]! | this.zero.words[word]!;
    const runs = this.#runs((word) => ~present(word) & this.#inside(word), present);
    const block = this.block.index;
    return Array.from({ length: runs.length / 2 }, (_, at) => ({
      block,
      page: runs[2 * at]!,
      count: runs[2 * at + 1]!,
    }));
  }

  /** Runs that begin with a page of the first kind and last up to one of the second. Both give the bits of a word. */
  #runs(begins: (word: number) => number, ends: (word: number) => number): number[] {
    const runs: number[] = [];
    const words = this.placed.words.length;
    let start = -1;
    for (let word = 0; word < words; word++) {
      for (let bits = start < 0 ? begins(word) : ends(word); bits !== 0; ) {
        const bit = lowestOne(bits);
        const above = -2 << bit;
        if (start < 0) {
          start = 32 * word + bit;
          bits = ends(word) & above;
        } else {
          runs.push(start, 32 * word + bit - start);
          start = -1;
          bits = begins(word) & above;
        }
      }
    }
    if (start >= 0) runs.push(start, this.pages - start);
    return runs;
  }

  #staleHostPages(): number[] {
    const runs: number[] = [];
    const count = this.pagesPerHostPage;
    for (let page = 0; page < this.pages; page += count) {
      if (this.#isStaleWithin(page, count)) {
        this.placed.clear(page, count);
        const previous = runs.length - 2;
        if (previous >= 0 && runs[previous]! + runs[previous + 1]! === page) runs[previous + 1]! += count;
        else runs.push(page, count);
      } else if (this.placed.countIn(page, count) > 0) {
        this.setPlaced(page, count);
      }
    }
    return runs;
  }

  #isStaleWithin(page: number, count: number): boolean {
    for (let at = page; at < page + count; at++) {
      if (((this.#staleIn(at >>> 5) >>> (at & 31)) & 1) === 1) return true;
    }
    return false;
  }

  #staleIn(word: number): number {
    return ~this.placed.words[word]! & (this.#written.words[word]! | ~this.zero.words[word]!) & this.#inside(word);
  }

  /** The bits of a word that stand for pages. */
  #inside(word: number): number {
    const pages = this.pages - 32 * word;
    return pages >= 32 ? -1 : (1 << pages) - 1;
  }
}
