/**
 * What the source relay holds for the destination: of every page of the guest the latest version, as a fill,
 * as a reference to the disk together with its bytes, or as bytes. Capture puts pages in at memory speed, a
 * sender takes them out at the link's, and what the destination has in place is forgotten.
 *
 *   putPage, putFill, putReference -> unsent -> fillBatch, takeNow -> under way -> acknowledged -> forgotten
 *                                       ^                               |
 *                                       └────────── resync ─────────────┘
 *
 * The store neither sends nor waits. Order is kept as long as batches arrive in the order in which they were
 * filled; those of `takeNow` may overtake once nothing is captured any more, as no page is then sent twice.
 */
import type { BlockSize } from '../digest.js';
import type { BatchBuilder } from '../link/batch.js';
import type { PageRange } from '../source/memoryStretch.js';
import type { RetainedRun } from '../source/window.js';
import { StoreContents } from './contents.js';
import { StoreError } from './errors.js';
import { Flights, type SentSet } from './flights.js';
import { runsOf } from './pageRuns.js';
import { pageState } from './pageTable.js';
import { land, resync } from './resync.js';
import { Sender, type SendOrder, type Taken } from './sender.js';
import { minLimitBytes, Slabs } from './slabs.js';
import { SpillFile } from './spillFile.js';

export interface PageStoreOptions {
  /** Of memory for pages; from half of it on they are compressed. At least `minLimitBytes`. */
  readonly limitBytes: number;
  /** A file to create for what exceeds the limit; null: the store is full then. */
  readonly spillPath: string | null;
}

/** Pages by the kind of their latest version. */
export interface PageCounts {
  readonly fill: number;
  readonly bytes: number;
  readonly reference: number;
}

export class PageStore implements AsyncDisposable {
  readonly #spill: SpillFile | null;
  readonly #slabs: Slabs;
  readonly #contents: StoreContents;
  readonly #flights: Flights;
  readonly #sender: Sender;

  /** @throws StoreError `VMMIG_STORE_LIMIT`, `VMMIG_STORE_SPILL_OPEN` */
  constructor(blocks: readonly BlockSize[], { limitBytes, spillPath }: PageStoreOptions) {
    if (!(limitBytes >= minLimitBytes))
      throw new StoreError('VMMIG_STORE_LIMIT', `a page store needs at least ${minLimitBytes} bytes`);
    this.#spill = spillPath === null ? null : new SpillFile(spillPath);
    this.#slabs = new Slabs(limitBytes, this.#spill);
    this.#contents = new StoreContents(blocks, this.#slabs);
    this.#flights = new Flights(this.#contents);
    this.#sender = new Sender(this.#contents, this.#flights);
  }

  /**
   * The three puts take over a page's latest version, and throw StoreError `VMMIG_STORE_RANGE` for pages that the
   * guest does not have, `VMMIG_STORE_DISK_FULL` and `VMMIG_STORE_SPILL_IO` when the spill file fails. The store is
   * as before then.
   *
   * @param start - of the page in `source`, which is copied
   */
  putPage(block: number, page: number, source: Buffer, start: number): void {
    this.#contents.putPage(this.#contents.table.id(block, page, 1), source, start);
  }

  /** Pages of which every byte is `fill`. Those that the destination knows to be so are not sent again. */
  putFill(block: number, page: number, count: number, fill: number): void {
    const first = this.#contents.table.id(block, page, count);
    for (let id = first; id < first + count; id++) this.#contents.putFill(id, fill);
  }

  /**
   * A run that the destination may find on its disk.
   *
   * @param count - at most `maxReferencePages`
   * @param bytes - of all its pages; copied, and kept until the destination has them in place
   */
  putReference(
    block: number,
    page: number,
    count: number,
    disk: number,
    diskOffsetBytes: number,
    digest: Buffer,
    bytes: Buffer,
  ): void {
    const first = this.#contents.table.id(block, page, count);
    this.#contents.putReference(first, count, disk, diskOffsetBytes, digest, bytes);
  }

  /**
   * Puts the next unsent pages in a batch. As long as there are fills or references, only those.
   *
   * @param builder - empty
   * @param limitPages - a run of fills counts for less; a batch also ends when the builder is full
   * @returns null when nothing is unsent
   * @throws StoreError when pages do not come back from where they were put away
   */
  fillBatch(builder: BatchBuilder, limitPages: number): SentSet | null {
    return this.#sender.fillBatch(builder, limitPages);
  }

  /**
   * Puts the unsent pages of a range in a batch at once; a reference as a whole. Stops when the builder is full.
   *
   * @param builder - empty
   */
  takeNow(block: number, page: number, count: number, builder: BatchBuilder): Taken {
    const { from, to } = this.#contents.table.clip(block, page, count);
    return this.#sender.takeNow(from, to, builder);
  }

  /** These go before any other pages of bytes, and before those that were moved earlier. */
  moveToFront(block: number, page: number, count: number): void {
    const { from, to } = this.#contents.table.clip(block, page, count);
    this.#sender.moveToFront(from, to);
  }

  /** These go before any other pages of bytes whenever they are put in; `moveToFront` overtakes them. */
  favour(ranges: readonly { readonly block: number; readonly page: number; readonly count: number }[]): void {
    for (const { block, page, count } of ranges) {
      const { from, to } = this.#contents.table.clip(block, page, count);
      this.#contents.favour(from, to);
    }
  }

  /** The order of pages of bytes that were not moved to the front; `captured` at first. */
  prefer(order: SendOrder): void {
    this.#sender.order = order;
  }

  /**
   * All pages of a batch are in place at the destination. In any order of batches.
   *
   * @returns false when no such batch is under way
   */
  acknowledged(token: number): boolean {
    return this.#flights.acknowledge(token);
  }

  /**
   * The destination has what a batch brought no longer: its pages are unsent again, but for those that a later one
   * carries.
   *
   * @returns false when no such batch is under way
   */
  givenBack(token: number): boolean {
    const flight = this.#flights.take(token);
    if (flight !== null) land(this.#contents, flight);
    return flight !== null;
  }

  /**
   * The bytes of a reference under way that the destination's disk does not hold.
   *
   * @param record - the index of its record in the batch
   * @returns null when there is none such, or it was asked for before
   */
  bytesOf(token: number, record: number): RetainedRun | null {
    return this.#flights.bytesOf(token, record);
  }

  /**
   * Starts again with another relay at the destination, after the switch: all that is not placed is unsent again,
   * and no batch is under way.
   *
   * @param placed - whether QEMU has the page
   * @throws StoreError `VMMIG_STORE_LOST` when it lacks a page that was acknowledged, and is no fill. The store is as
   *   before then.
   */
  resync(placed: (block: number, page: number) => boolean): void {
    const { table } = this.#contents;
    resync(this.#contents, this.#flights, (id) => {
      const block = table.blockOf(id);
      return placed(block, id - table.firstOfBlock[block]!);
    });
  }

  /** The pages of bytes whose latest version has not been sent: runs of first page and count, ascending, in one array. */
  remoteSet(block: number): Uint32Array {
    const { table } = this.#contents;
    const first = table.firstOfBlock[block]!;
    return runsOf(table.state.subarray(first, first + table.pagesOfBlock[block]!), pageState.bytes);
  }

  /** Of these pages: how many of bytes wait to be sent, and how many have not been put in yet. */
  waitingIn(ranges: readonly PageRange[]): { readonly bytes: number; readonly unknown: number } {
    const { table } = this.#contents;
    let bytes = 0;
    let unknown = 0;
    for (const { block, page, count } of ranges) {
      const { from, to } = table.clip(block, page, count);
      for (let id = from; id < to; id++) {
        if (table.state[id] === pageState.bytes) bytes++;
        else if (table.state[id] === pageState.unknown) unknown++;
      }
    }
    return { bytes, unknown };
  }

  /** Pages not sent yet. */
  get unsent(): PageCounts {
    const { counts } = this.#contents.table;
    return {
      fill: counts[pageState.fill]!,
      bytes: counts[pageState.bytes]!,
      reference: counts[pageState.reference]!,
    };
  }

  /** Pages not acknowledged yet, sent or not. */
  get remaining(): PageCounts {
    const { counts } = this.#contents.table;
    return {
      fill: counts[pageState.fill]! + counts[pageState.fillSent]!,
      bytes: counts[pageState.bytes]! + counts[pageState.bytesSent]!,
      reference: counts[pageState.reference]! + counts[pageState.referenceSent]!,
    };
  }

  /** Everything that was put in is acknowledged. */
  get isEmpty(): boolean {
    const { fill, bytes, reference } = this.remaining;
    return fill + bytes + reference === 0;
  }

  /** No more should be captured until batches are acknowledged. What is put in all the same is kept. */
  get isFull(): boolean {
    return this.#slabs.isFull;
  }

  /** Memory in use for pages, compressed ones included. */
  get heldBytes(): number {
    return this.#slabs.heldBytes;
  }

  /** Memory in use for compressed pages. */
  get compressedBytes(): number {
    return this.#slabs.compressedBytes;
  }

  /** In the spill file. */
  get spilledBytes(): number {
    return this.#slabs.spilledBytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#spill?.[Symbol.dispose]();
  }
}
