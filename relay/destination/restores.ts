/**
 * The teleported runs that are being read from the destination's disk, and which of their pages have
 * been overtaken: a page that arrives in a newer version while its run is still being read must not be
 * replaced by the older one.
 */
import type { BatchRecord } from '../link/batch.js';

export interface Restore {
  readonly sequence: number;
  /** Index of the record in its batch: what the source knows the run by. */
  readonly record: number;
  readonly run: BatchRecord;
  /** One byte a page: 1 when a newer version has arrived. */
  readonly overtaken: Uint8Array;
  /** Its disk has been asked. */
  isBegun: boolean;
}

export class Restores {
  readonly #pending = new Set<Restore>();
  /** By block and stretch of pages, so that who covers a page is found at once: runs are no longer than a stretch. */
  readonly #byStretch = new Map<number, Set<Restore>>();
  /** One bit a page, for the common question: is any restore of this page pending at all? */
  readonly #bits: Uint8Array[];

  constructor(pagesOfBlock: readonly number[]) {
    this.#bits = pagesOfBlock.map((pages) => new Uint8Array((pages >> 3) + 1));
  }

  get size(): number {
    return this.#pending.size;
  }

  /** Announces a run, after {@link overtake} was called for its pages. */
  begin(sequence: number, record: number, run: BatchRecord): Restore {
    const restore = { sequence, record, run, overtaken: new Uint8Array(run.count), isBegun: false };
    this.#pending.add(restore);
    for (const key of stretches(run.block, run.page, run.count)) {
      const there = this.#byStretch.get(key);
      if (there === undefined) this.#byStretch.set(key, new Set([restore]));
      else there.add(restore);
    }
    this.#mark(run.block, run.page, run.count, true);
    return restore;
  }

  /** A newer version of these pages is at hand. */
  overtake(block: number, page: number, count: number): void {
    if (this.#pending.size === 0 || !this.#isAnyMarked(block, page, count)) return;
    for (const { run, overtaken } of this.of(block, page, count)) {
      const first = Math.max(page, run.page);
      const end = Math.min(page + count, run.page + run.count);
      if (first < end) overtaken.fill(1, first - run.page, end - run.page);
    }
    this.#mark(block, page, count, false);
  }

  /** Those that are about any of these pages. */
  of(block: number, page: number, count: number): Set<Restore> {
    const found = new Set<Restore>();
    if (!this.#isAnyMarked(block, page, count)) return found;
    for (const key of stretches(block, page, count))
      for (const restore of this.#byStretch.get(key) ?? [])
        if (Restores.overlap(restore, page, count) > 0) found.add(restore);
    return found;
  }

  /** How many of these pages are the restore's, and not overtaken. */
  static overlap({ run, overtaken }: Restore, page: number, count: number): number {
    let pages = 0;
    const end = Math.min(page + count, run.page + run.count);
    for (let at = Math.max(page, run.page); at < end; at++) if (overtaken[at - run.page] === 0) pages++;
    return pages;
  }

  finish(restore: Restore): void {
    this.#pending.delete(restore);
    const { block, page } = restore.run;
    for (const key of stretches(block, page, restore.run.count)) {
      const there = this.#byStretch.get(key)!;
      there.delete(restore);
      if (there.size === 0) this.#byStretch.delete(key);
    }
    for (let at = 0; at < restore.overtaken.length; at++)
      if (restore.overtaken[at] === 0) this.#mark(block, page + at, 1, false);
  }

  #isAnyMarked(block: number, page: number, count: number): boolean {
    const bits = this.#bits[block]!;
    for (let at = page; at < page + count; at++) if ((bits[at >> 3]! & (1 << (at & 7))) !== 0) return true;
    return false;
  }

  #mark(block: number, page: number, count: number, isPending: boolean): void {
    const bits = this.#bits[block]!;
    for (let at = page; at < page + count; at++) {
      const bit = 1 << (at & 7);
      if (isPending) bits[at >> 3]! |= bit;
      else bits[at >> 3]! &= ~bit;
    }
  }
}

const stretchPages = 64;
const stretchesPerBlock = 2 ** 26;

function* stretches(block: number, page: number, count: number): Generator<number> {
  const last = Math.floor((page + count - 1) / stretchPages);
  for (let at = Math.floor(page / stretchPages); at <= last; at++) yield block * stretchesPerBlock + at;
}
