/** One bit per page, changed and counted by runs. */

export class PageBitmap {
  /** Page 0 is the lowest bit of the first word. Bits beyond the last page are never set. */
  readonly words: Uint32Array;
  readonly #pages: number;
  #count = 0;

  constructor(pages: number) {
    this.#pages = pages;
    this.words = new Uint32Array(Math.ceil(pages / 32));
  }

  /** Bits that are set. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return ((this.words[page >>> 5]! >>> (page & 31)) & 1) === 1;
  }

  set(page: number, count: number): void {
    for (let at = page; at < page + count; at += 32 - (at & 31)) {
      const mask = maskFrom(at, page + count);
      const before = this.words[at >>> 5]!;
      this.words[at >>> 5] = before | mask;
      this.#count += ones(mask & ~before);
    }
  }

  clear(page: number, count: number): void {
    for (let at = page; at < page + count; at += 32 - (at & 31)) {
      const mask = maskFrom(at, page + count);
      const before = this.words[at >>> 5]!;
      this.words[at >>> 5] = before & ~mask;
      this.#count -= ones(mask & before);
    }
  }

  /** How many of a run's bits are set. */
  countIn(page: number, count: number): number {
    let total = 0;
    for (let at = page; at < page + count; at += 32 - (at & 31)) {
      total += ones(this.words[at >>> 5]! & maskFrom(at, page + count));
    }
    return total;
  }

  /** The first page in `[page, end)` whose bit is `isSet`, or `end`. */
  find(isSet: boolean, page: number, end: number): number {
    for (let at = page; at < end; at += 32 - (at & 31)) {
      const word = this.words[at >>> 5]!;
      const found = (isSet ? word : ~word) & maskFrom(at, end);
      if (found !== 0) return (at & ~31) + lowestOne(found);
    }
    return end;
  }

  /** Sets what is set in `bits`, lowest bit of the first byte first; what is beyond the last page is ignored. */
  setFrom(bits: Buffer): void {
    for (let word = 0; word < this.words.length && 4 * word + 4 <= bits.length; word++) {
      const mask = bits.readUInt32LE(4 * word) & maskFrom(32 * word, this.#pages);
      this.#count += ones(mask & ~this.words[word]!);
      this.words[word]! |= mask;
    }
  }
}

/** The bits of `page`'s word from `page` on, as far as they are before `end`. */
function maskFrom(page: number, end: number): number {
  const from = page & 31;
  const length = Math.min(32 - from, end - page);
  return length === 32 ? -1 : ((1 << length) - 1) << from;
}

/** Place of the lowest bit that is set; `word` is not 0. */
export function lowestOne(word: number): number {
  return 31 - Math.clz32(word & -word);
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
