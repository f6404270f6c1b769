/** Puts pages in a batch, in their final version: what the guest had when it stopped. */
import { type CaptureBlock, pageKind } from './captureBlock.js';
import type { Flight } from './flights.js';
import { groupPages, pageBytes } from './pageGroups.js';

/** The part of a batch's builder that is needed here. */
export interface PageBatch {
  readonly isFull: boolean;
  addFill(block: number, page: number, fill: number): void;
  addPage(block: number, page: number, source: Buffer, start: number): void;
  /** @returns the record's index in the batch */
  addReference(
    block: number,
    page: number,
    count: number,
    disk: number,
    diskOffsetBytes: number,
    digest: Buffer,
  ): number;
}

export interface Digester {
  /** 128 bits or more; only the first 128 are kept. */
  digest(bytes: Buffer): Buffer;
}

/** Stands for the disk in a reference to what the destination holds as a hint. */
export const heldDisk = 0xffff;

/** As many as a reference may have. */
export const maxReferencePages = 64;
const zeros = Buffer.alloc(pageBytes);

export class PageTeller {
  readonly #bytes = Buffer.allocUnsafeSlow(maxReferencePages * pageBytes);
  /** What was read so far, for who bounds the time that a call takes. */
  pagesRead = 0;

  constructor(
    private readonly digester: Digester,
    private readonly changed: (block: CaptureBlock, group: number) => void,
  ) {}

  /** The unsent pages among `page .. end`, which lie in one group, until the batch is full. */
  pages(block: CaptureBlock, page: number, end: number, batch: PageBatch, flight: Flight): void {
    if (block.hints.countOf(Math.floor(page / groupPages)) > 0)
      this.confirm(block, Math.floor(page / groupPages), batch, flight);
    for (let at = block.nextUnsent(page, end); at < end && !batch.isFull; at = block.nextUnsent(at, end)) {
      if (block.kindOf(at) === pageKind.reference) this.reference(block, at, batch, flight);
      else this.#stretch(block, at, end, batch, flight);
    }
  }

  /** Of a group what the destination holds as a hint, but for what has changed since. */
  confirm(block: CaptureBlock, group: number, batch: PageBatch, flight: Flight): void {
    const start = block.hints.startOf(group);
    const page = group * groupPages + start;
    const bytes = this.#read(block, page, block.hints.countOf(group));
    const stretches = block.hints.compare(group, start, block.hints.countOf(group), bytes);
    block.hints.clear(group);
    for (const { from, to, isHeld } of stretches)
      if (isHeld && block.isUnsent(page + from, to - from) && !batch.isFull)
        this.#held(block, page + from, bytes.subarray(from * pageBytes, to * pageBytes), batch, flight);
    if (!stretches.every(({ isHeld }) => isHeld)) this.changed(block, group);
  }

  #held(block: CaptureBlock, page: number, bytes: Buffer, batch: PageBatch, flight: Flight): void {
    const count = bytes.length / pageBytes;
    const record = batch.addReference(block.index, page, count, heldDisk, 0, this.digester.digest(bytes));
    flight.addReference(record, block, page, count, true);
  }

  /** What is unsent of the page cache around a page. */
  reference(block: CaptureBlock, page: number, batch: PageBatch, flight: Flight): void {
    const run = block.cacheRunOf(page);
    const isUntold = (at: number) => block.sent[at] === 0 && block.kindOf(at) === pageKind.reference;
    let start = page;
    while (start > run.page && page - start < maxReferencePages - 1 && isUntold(start - 1)) start--;
    let end = page + 1;
    while (end < run.page + run.count && end - start < maxReferencePages && isUntold(end)) end++;
    const count = end - start;
    const digest = this.digester.digest(this.#read(block, start, count));
    const diskOffsetBytes = run.diskOffsetBytes + (start - run.page) * pageBytes;
    const record = batch.addReference(block.index, start, count, run.disk, diskOffsetBytes, digest);
    flight.addReference(record, block, start, count, false);
  }

  /** Pages that are to be read, as far as they lie together. */
  #stretch(block: CaptureBlock, page: number, end: number, batch: PageBatch, flight: Flight): void {
    let to = page + 1;
    while (to < end && block.sent[to] === 0 && block.kindOf(to) !== pageKind.reference) to++;
    const bytes = this.#read(block, page, to - page);
    for (let at = page; at < to && !batch.isFull; at++) {
      const start = (at - page) * pageBytes;
      if (isZero(bytes, start)) {
        batch.addFill(block.index, at, 0);
        flight.fillPages++;
      } else {
        batch.addPage(block.index, at, bytes, start);
        flight.bytesPages++;
      }
      flight.add(block, at);
    }
  }

  #read(block: CaptureBlock, page: number, count: number): Buffer {
    block.read(page, count, this.#bytes);
    this.pagesRead += count;
    return this.#bytes.subarray(0, count * pageBytes);
  }
}

export function isZero(bytes: Buffer, start: number): boolean {
  return zeros.compare(bytes, start, start + pageBytes) === 0;
}
