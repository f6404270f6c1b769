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
}

export class Restores {
  readonly #pending = new Set<Restore>();
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
    const restore = { sequence, record, run, overtaken: new Uint8Array(run.count) };
    this.#pending.add(restore);
    this.#mark(run.block, run.page, run.count, true);
    return restore;
  }

  /** A newer version of these pages is at hand. */
  overtake(block: number, page: number, count: number): void {
    if (this.#pending.size === 0 || !this.#isAnyMarked(block, page, count)) return;
    for (const { run, overtaken } of this.#pending) {
      if (run.block !== block) continue;
      const first = Math.max(page, run.page);
      const end = Math.min(page + count, run.page + run.count);
      if (first < end) overtaken.fill(1, first - run.page, end - run.page);
    }
    this.#mark(block, page, count, false);
  }

  finish(restore: Restore): void {
    this.#pending.delete(restore);
    const { block, page } = restore.run;
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
