/**
 * The latest version of every page, and what that means for the versions before: the one place where pages
 * are superseded. A page of bytes that is superseded under way to the destination frees its bytes at once,
 * since only the latest version is ever sent again; a reference under way keeps all of them, because the
 * destination asks for the run as it was.
 */
import { type BlockSize, pageBytes } from '../digest.js';
import { PageLists } from './pageLists.js';
import { PageTable, pageState } from './pageTable.js';
import type { Slabs } from './slabs.js';

/** Where unsent pages wait. Of a reference only the first page is in a list. */
export const waiting = {
  /** Fills and references. */
  cheap: 0,
  bytes: 1,
  /** Bytes that go first. */
  front: 2,
} as const;

/** A run of pages that the destination can read from its disk. */
export interface ReferenceRun {
  readonly number: number;
  readonly firstId: number;
  readonly disk: number;
  readonly diskOffsetBytes: number;
  readonly digest: Buffer;
  /** The bytes of its pages. */
  readonly slots: Uint32Array;
}

export class StoreContents {
  readonly table: PageTable;
  readonly lists: PageLists;
  readonly #runs: (ReferenceRun | undefined)[] = [];
  readonly #freeRuns: number[] = [];
  /** Pages, by id, whose bytes go first; one bit each. */
  readonly #favoured: Uint8Array;

  constructor(
    blocks: readonly BlockSize[],
    readonly slabs: Slabs,
  ) {
    this.table = new PageTable(blocks);
    this.lists = new PageLists(this.table.totalPages, Object.keys(waiting).length);
    this.#favoured = new Uint8Array(Math.ceil(this.table.totalPages / 8));
  }

  /** The bytes of these pages go before others from now on. */
  favour(from: number, to: number): void {
    for (let id = from; id < to; id++) {
      this.#favoured[id >>> 3]! |= 1 << (id & 7);
      if (this.table.state[id] !== pageState.bytes) continue;
      this.lists.unlink(id);
      this.lists.append(waiting.front, id);
    }
  }

  putPage(id: number, source: Buffer, start: number): void {
    const slot = this.slabs.put(source, start);
    this.supersede(id);
    this.table.set(id, pageState.bytes, slot);
    const isFavoured = (this.#favoured[id >>> 3]! & (1 << (id & 7))) !== 0;
    this.lists.append(isFavoured ? waiting.front : waiting.bytes, id);
  }

  putFill(id: number, fill: number): void {
    if (this.#isFilledWith(id, fill)) return;
    this.supersede(id);
    this.table.set(id, pageState.fill, fill);
    this.lists.append(waiting.cheap, id);
  }

  putReference(
    firstId: number,
    count: number,
    disk: number,
    diskOffsetBytes: number,
    digest: Buffer,
    bytes: Buffer,
  ): void {
    const slots = this.#putAll(bytes, count);
    for (let id = firstId; id < firstId + count; id++) this.supersede(id);
    const number = this.#freeRuns.pop() ?? this.#runs.length;
    this.#runs[number] = { number, firstId, disk, diskOffsetBytes, digest: Buffer.from(digest), slots };
    for (let id = firstId; id < firstId + count; id++) this.table.set(id, pageState.reference, number);
    this.lists.append(waiting.cheap, firstId);
  }

  /** Of a page that is part of a reference. */
  runOf(id: number): ReferenceRun {
    return this.#runs[this.table.content[id]!]!;
  }

  /** Its slots are someone else's from now on, or free. */
  forgetRun(run: ReferenceRun): void {
    this.#runs[run.number] = undefined;
    this.#freeRuns.push(run.number);
  }

  /** An unsent reference becomes pages of bytes: one of them has a newer version, so the run does not hold any longer. */
  dissolve(run: ReferenceRun): void {
    this.lists.unlink(run.firstId);
    for (let index = 0; index < run.slots.length; index++) {
      this.table.set(run.firstId + index, pageState.bytes, run.slots[index]!);
      this.lists.append(waiting.bytes, run.firstId + index);
    }
    this.forgetRun(run);
  }

  /** Forgets the latest version of a page, whatever became of it. The page is in no list then. */
  supersede(id: number): void {
    const { table } = this;
    const state = table.state[id]!;
    if (state === pageState.reference) this.dissolve(this.runOf(id));
    if (state === pageState.fill) this.lists.unlink(id);
    else if (state === pageState.bytes || state === pageState.reference) {
      this.lists.unlink(id);
      this.slabs.free(table.content[id]!);
    } else if (state === pageState.bytesSent) this.slabs.free(table.content[id]!);
  }

  /** The destination has been told, or will be before anything newer. */
  #isFilledWith(id: number, fill: number): boolean {
    const state = this.table.state[id]!;
    const isFill = state === pageState.fill || state === pageState.fillSent || state === pageState.fillTold;
    return isFill && this.table.content[id] === fill;
  }

  #putAll(bytes: Buffer, count: number): Uint32Array {
    const slots = new Uint32Array(count);
    let kept = 0;
    try {
      for (; kept < count; kept++) slots[kept] = this.slabs.put(bytes, kept * pageBytes);
    } finally {
      // The spill file may fail at any of them.
      if (kept < count) for (const slot of slots.subarray(0, kept)) this.slabs.free(slot);
    }
    return slots;
  }
}
