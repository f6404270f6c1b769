/** A read that the server has been asked for: where its bytes go, and which of them are still missing. No I/O in here. */
import type { DiskError } from '../errors.js';
import { violation } from './protocol.js';

/** A piece of somebody's buffer that bytes `start` to `end` of the disk belong into, from `targetOffset` on. */
export interface Destination {
  readonly start: number;
  readonly end: number;
  readonly target: Buffer;
  readonly targetOffset: number;
}

/** Servers that answer in many chunks have a reason for each: no block is smaller than this. */
const SMALLEST_BLOCK_BYTES = 512;
const SPARE_CHUNKS = 16;

export class PendingRead {
  /** What is missing, in order; the server may answer in any order, but each byte once. */
  readonly #missing: { start: number; end: number }[];
  #chunksLeft: number;
  /** What the server has said against it: it fails when the server has come to its end. */
  failure: DiskError | undefined;

  /** @param destinations - may overlap, and leave out what nobody wants */
  constructor(
    readonly start: number,
    readonly end: number,
    private readonly destinations: readonly Destination[],
  ) {
    this.#missing = [{ start, end }];
    this.#chunksLeft = Math.ceil((end - start) / SMALLEST_BLOCK_BYTES) + SPARE_CHUNKS;
  }

  get isComplete(): boolean {
    return this.#missing.length === 0;
  }

  /** A chunk about this read begins. @throws DiskError VMMIG_DISK_SERVER when there is no end of them */
  countChunk(): void {
    this.#chunksLeft -= 1;
    if (this.#chunksLeft < 0) throw violation('it has no end of chunks for a read');
  }

  includes(offset: number): boolean {
    return offset >= this.start && offset < this.end;
  }

  /**
   * The server is about to tell these bytes.
   * @throws DiskError VMMIG_DISK_SERVER when they were not asked for, or told before
   */
  claim(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    const index = this.#missing.findIndex((gap) => gap.start <= offset && end <= gap.end);
    const gap = this.#missing[index];
    if (gap === undefined || lengthBytes === 0)
      throw violation(`it tells ${lengthBytes} bytes at ${offset} for a read of ${this.start}-${this.end}`);
    const before = { start: gap.start, end: offset };
    const after = { start: end, end: gap.end };
    this.#missing.splice(index, 1, ...[before, after].filter((left) => left.start < left.end));
  }

  /** Puts claimed bytes where they belong. */
  write(offset: number, bytes: Buffer): void {
    for (const { start, end, target, targetOffset } of this.destinations) {
      const from = Math.max(start, offset);
      const to = Math.min(end, offset + bytes.length);
      if (from < to) bytes.copy(target, targetOffset + from - start, from - offset, to - offset);
    }
  }

  /** Claimed bytes that are all zero. */
  clear(offset: number, lengthBytes: number): void {
    for (const { start, end, target, targetOffset } of this.destinations) {
      const from = Math.max(start, offset);
      const to = Math.min(end, offset + lengthBytes);
      if (from < to) target.fill(0, targetOffset + from - start, targetOffset + to - start);
    }
  }
}
