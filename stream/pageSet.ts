/** A set of page numbers of one RAM block: one bit per page, and memory only for parts that have a page. */

const SEGMENT_BYTES = 4096;
const SEGMENT_PAGES = SEGMENT_BYTES * 8;

export class PageSet {
  readonly #segments = new Map<number, Uint8Array>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** @returns whether the page was not in the set before */
  add(pageIndex: number): boolean {
    const number = Math.floor(pageIndex / SEGMENT_PAGES);
    let segment = this.#segments.get(number);
    if (segment === undefined) {
      segment = new Uint8Array(SEGMENT_BYTES);
      this.#segments.set(number, segment);
    }
    const bit = pageIndex % SEGMENT_PAGES;
    const mask = 1 << (bit & 7);
    const byte = segment[bit >>> 3]!;
    if ((byte & mask) !== 0) return false;
    segment[bit >>> 3] = byte | mask;
    this.#size += 1;
    return true;
  }
}
