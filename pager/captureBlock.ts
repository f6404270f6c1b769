/** What is known of the pages of one RAM block that is kept in a file, or read from QEMU. Seven bytes a page, and two for each group of pages. */
import { HintTable } from './hintTable.js';
import type { MemorySource } from './memorySource.js';
import { groupPages, pageBytes } from './pageGroups.js';

/** How a page will be told, as far as is known before it is read. */
export const pageKind = { bytes: 0, reference: 1, fill: 2 } as const;

/** A RAM block and where it is kept. */
export interface FileBlock {
  /** By which batches name it: its place among the guest's blocks. */
  readonly block: number;
  readonly lengthBytes: number;
  readonly file: MemorySource;
  readonly fileOffset: number;
}

/** Page cache: guest pages that the destination may find on a disk. */
export interface CacheRun {
  readonly block: number;
  readonly page: number;
  readonly count: number;
  readonly disk: number;
  readonly diskOffsetBytes: number;
}

export class CaptureBlock {
  readonly index: number;
  readonly pages: number;
  readonly hints: HintTable;
  /** One byte a page: its final version has been told. */
  readonly sent: Buffer;
  /** Ascending and apart. */
  cache: readonly CacheRun[] = [];
  /** Where the file had no pages when it was surveyed: first page and end of each hole, ascending. */
  holes: number[] = [];
  /** Pages by `pageKind`. */
  readonly unsent: number[];
  readonly underway = [0, 0, 0];
  readonly #placed: Buffer;
  readonly #kind: Uint8Array;

  constructor(private readonly place: FileBlock) {
    this.index = place.block;
    this.pages = Math.ceil(place.lengthBytes / pageBytes);
    this.hints = new HintTable(Math.ceil(this.pages / groupPages));
    this.sent = Buffer.alloc(this.pages);
    this.#placed = Buffer.alloc(this.pages);
    this.#kind = new Uint8Array(this.pages);
    this.unsent = [this.pages, 0, 0];
  }

  kindOf(page: number): number {
    return this.#kind[page]!;
  }

  /** Of the pages that are not sent yet. */
  setKind(page: number, end: number, kind: number): void {
    for (let at = page; at < end; at++) {
      if (this.sent[at] !== 0) continue;
      this.unsent[this.#kind[at]!]!--;
      this.unsent[kind]!++;
      this.#kind[at] = kind;
    }
  }

  markSent(page: number, count: number): void {
    for (let at = page; at < page + count; at++) {
      this.sent[at] = 1;
      this.unsent[this.#kind[at]!]!--;
      this.underway[this.#kind[at]!]!++;
    }
  }

  acknowledge(page: number, count: number): void {
    for (let at = page; at < page + count; at++) {
      if (this.#placed[at] !== 0) continue;
      this.#placed[at] = 1;
      this.underway[this.#kind[at]!]!--;
    }
  }

  isPlaced(page: number): boolean {
    return this.#placed[page] !== 0;
  }

  /** Begins again: what is not placed is unsent, and the destination holds no hints. */
  reset(isPlaced: (page: number) => boolean): void {
    this.unsent.fill(0);
    this.underway.fill(0);
    for (let page = 0; page < this.pages; page++) {
      const placed = isPlaced(page) ? 1 : 0;
      this.sent[page] = this.#placed[page] = placed;
      if (placed === 0) this.unsent[this.#kind[page]!]!++;
    }
    this.hints.clearAll();
  }

  /** The first page from `page` on that is not sent; `end` or more when there is none before it. */
  nextUnsent(page: number, end: number): number {
    const found = page < end ? this.sent.indexOf(0, page) : -1;
    return found < 0 ? end : found;
  }

  isUnsent(page: number, count: number): boolean {
    const found = this.sent.indexOf(1, page);
    return found < 0 || found >= page + count;
  }

  /** Pages into the beginning of a buffer. */
  read(page: number, count: number, into: Buffer): void {
    this.place.file.read(this.place.fileOffset + page * pageBytes, count * pageBytes, into);
  }

  /** The first page from `page` on that the file has; `end` when there is none before it. */
  nextInFile(page: number, end: number): number {
    const at = this.place.file.nextData(this.place.fileOffset + page * pageBytes);
    return Math.min(end, Math.floor((at - this.place.fileOffset) / pageBytes));
  }

  async survey(signal?: AbortSignal): Promise<void> {
    const { file, fileOffset } = this.place;
    const holes: number[] = [];
    let end = 0;
    for await (const { offset, lengthBytes } of file.dataRuns(fileOffset, this.pages * pageBytes, signal)) {
      const start = Math.floor((offset - fileOffset) / pageBytes);
      if (start > end) holes.push(end, start);
      end = Math.ceil((offset - fileOffset + lengthBytes) / pageBytes);
    }
    if (end < this.pages) holes.push(end, this.pages);
    this.holes = holes;
    this.setKind(0, this.pages, pageKind.bytes);
    for (let at = 0; at < holes.length; at += 2) this.setKind(holes[at]!, holes[at + 1]!, pageKind.fill);
    this.setCache(this.cache);
  }

  /** Replaces what was known of the page cache. */
  setCache(runs: readonly CacheRun[]): void {
    for (const { page, count } of this.cache) this.#exchange(page, count, pageKind.reference, pageKind.bytes);
    this.cache = runs
      .filter(({ page, count }) => page + count <= this.pages)
      .toSorted((left, right) => left.page - right.page)
      .filter((run, at, all) => at === 0 || all[at - 1]!.page + all[at - 1]!.count <= run.page);
    for (const { page, count } of this.cache) this.#exchange(page, count, pageKind.bytes, pageKind.reference);
  }

  /** The run that a page of kind `reference` belongs to. */
  cacheRunOf(page: number): CacheRun {
    let low = 0;
    let high = this.cache.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.cache[middle]!.page <= page) low = middle + 1;
      else high = middle;
    }
    return this.cache[low - 1]!;
  }

  #exchange(page: number, count: number, from: number, to: number): void {
    for (let at = page; at < page + count; at++) if (this.#kind[at] === from) this.setKind(at, at + 1, to);
  }
}
