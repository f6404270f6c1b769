/**
 * What the store knows about every page: its state, where its content is, and the batch that carries it.
 * All pages of all blocks are numbered in one sequence, so that a page is one number (its id). Nine bytes
 * a page here and eight in `PageLists`: 0.4 % of the guest's memory.
 */
import { type BlockSize, pageBytes } from '../digest.js';
import { StoreError } from './errors.js';

/** Of the latest version of a page. The first six are what remains to be done. */
export const pageState = {
  /** Never captured. */
  unknown: 0,
  fill: 1,
  bytes: 2,
  reference: 3,
  fillSent: 4,
  bytesSent: 5,
  referenceSent: 6,
  /** Acknowledged, and kept in mind: a destination that starts again has to be told again. */
  fillTold: 7,
  /** Acknowledged: in place in the destination's QEMU, and forgotten here. */
  placed: 8,
} as const;

export class PageTable {
  readonly state: Uint8Array;
  /** Fill: the byte. Bytes: the slot. Reference: the number of its run. */
  readonly content: Uint32Array;
  /** Sent pages: the batch that carries the latest version. */
  readonly batch: Uint32Array;
  /** How many pages are in each state. */
  readonly counts: number[] = new Array(Object.keys(pageState).length).fill(0);
  readonly pagesOfBlock: readonly number[];
  readonly firstOfBlock: readonly number[];
  readonly totalPages: number;
  #lastBlock = 0;

  constructor(blocks: readonly BlockSize[]) {
    this.pagesOfBlock = blocks.map(({ lengthBytes }) => Math.ceil(lengthBytes / pageBytes));
    let total = 0;
    this.firstOfBlock = this.pagesOfBlock.map((pages) => {
      total += pages;
      return total - pages;
    });
    this.totalPages = total;
    this.state = new Uint8Array(total);
    this.content = new Uint32Array(total);
    this.batch = new Uint32Array(total);
    this.counts[pageState.unknown] = total;
  }

  /** @throws StoreError `VMMIG_STORE_RANGE` when the guest has no such pages: the next block must not get them */
  id(block: number, page: number, count: number): number {
    const pages = this.pagesOfBlock[block];
    if (pages === undefined || page < 0 || page + count > pages)
      throw new StoreError('VMMIG_STORE_RANGE', `${count} pages at ${page} of block ${block} are not the guest's`);
    return this.firstOfBlock[block]! + page;
  }

  /** The ids of those pages of a range that exist: the range may come from the other relay. */
  clip(block: number, page: number, count: number): { readonly from: number; readonly to: number } {
    const pages = this.pagesOfBlock[block] ?? 0;
    const first = this.firstOfBlock[block] ?? 0;
    const from = Math.min(Math.max(0, page), pages);
    return { from: first + from, to: first + Math.max(from, Math.min(page + count, pages)) };
  }

  blockOf(id: number): number {
    const first = this.firstOfBlock;
    let block = this.#lastBlock;
    while (id < first[block]!) block--;
    while (id >= first[block]! + this.pagesOfBlock[block]!) block++;
    this.#lastBlock = block;
    return block;
  }

  set(id: number, state: number, content: number): void {
    this.move(id, state);
    this.content[id] = content;
  }

  move(id: number, state: number): void {
    this.counts[this.state[id]!]!--;
    this.counts[state]!++;
    this.state[id] = state;
  }

  /** Of pages that were not sent before: they are under way with this batch. */
  send(id: number, state: number, batch: number): void {
    this.move(id, state);
    this.batch[id] = batch;
  }

  /** Its latest version was sent and is not acknowledged. */
  isUnderWay(id: number): boolean {
    const state = this.state[id]!;
    return state >= pageState.fillSent && state <= pageState.referenceSent;
  }

  /** Whether it is under way with this batch. */
  isCarriedBy(id: number, batch: number): boolean {
    return this.isUnderWay(id) && this.batch[id] === batch;
  }
}
