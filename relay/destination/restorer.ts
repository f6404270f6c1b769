/**
 * Puts teleported runs back: reads them from the local disk in disk order, no faster than QEMU takes the pages, and
 * asks the source for those that the disk does not hold. Only what has the source's digest is ever placed.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import { DiskError } from '../../disk/errors.js';
import { type HeldPages, heldDisk } from '../../pager/index.js';
import { BufferPool } from '../bufferPool.js';
import type { RelayCounters } from '../counters.js';
import { pageBytes, type RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { type BatchRecord, maxReferencePages, unpackPages } from '../link/batch.js';
import type { Resend } from '../link/resend.js';
import { type Restore, Restores } from './restores.js';

/** What restoring does to the rest of the relay. */
export interface RestorerSink {
  /** Pages `from` to `to` of a run are right, and newer than any that came before. */
  place(run: BatchRecord, from: number, to: number, bytes: Buffer): void;
  /** The disk does not hold a run: its bytes are needed after all. */
  askAgain(sequence: number, record: number): void;
  /** The storage does not answer: a guest would wait for it as well. @returns whether that is the end */
  storageSilent(error: DiskError): boolean;
  /** All runs of a batch are in place. */
  batchDone(sequence: number): void;
  /** Whether QEMU takes what is read. */
  mayRead(): boolean;
}

export interface RestorerOptions {
  /** Being read from disk at a time. */
  readonly maxReadingBytes?: number;
  /** What references to `heldDisk` mean. */
  readonly held?: HeldPages | null;
}

/** Enough to read in disk order and in long pieces. */
const defaultReadingBytes = 8 * 1024 * 1024;
const maxFreeBuffers = 32;

export class Restorer {
  readonly #disks: readonly DiskReader[];
  readonly #digester: RunDigester;
  readonly #counters: RelayCounters;
  readonly #sink: RestorerSink;
  readonly #restores: Restores;
  readonly #pool = new BufferPool(maxReferencePages * pageBytes, maxFreeBuffers);
  /** Next to be read, from `#next` on. */
  #queue: Restore[] = [];
  #next = 0;
  #readingBytes = 0;
  /** Asked for again, by batch and record. */
  readonly #asked = new Map<string, Restore>();
  /** References of a batch that are not in place yet. */
  readonly #unresolved = new Map<number, number>();
  #whenIdle: (() => void) | null = null;
  #isStopped = false;
  /** Being read from disk at a time. */
  maxReadingBytes: number;
  readonly #held: HeldPages | null;

  constructor(
    disks: readonly DiskReader[],
    digester: RunDigester,
    counters: RelayCounters,
    pagesOfBlock: readonly number[],
    sink: RestorerSink,
    { maxReadingBytes = defaultReadingBytes, held = null }: RestorerOptions = {},
  ) {
    this.maxReadingBytes = maxReadingBytes;
    this.#held = held;
    this.#disks = disks;
    this.#digester = digester;
    this.#counters = counters;
    this.#restores = new Restores(pagesOfBlock);
    this.#sink = sink;
  }

  /** Runs that are not in place yet. */
  get pending(): number {
    return this.#restores.size;
  }

  /** A newer version of these pages is at hand: what is being restored must not replace it. */
  overtake(block: number, page: number, count: number): void {
    this.#restores.overtake(block, page, count);
  }

  /** Takes a reference in; `start` begins to read. */
  add(sequence: number, record: number, run: BatchRecord): void {
    this.#queue.push(this.#restores.begin(sequence, record, run));
    this.#unresolved.set(sequence, (this.#unresolved.get(sequence) ?? 0) + 1);
  }

  /** Reads as much as QEMU can take now. To be called whenever it has taken some. */
  start(): void {
    while (this.#readingBytes < this.maxReadingBytes && this.#sink.mayRead() && !this.#isStopped) {
      const restore = this.#queue[this.#next];
      if (restore === undefined) break;
      this.#next++;
      this.#begin(restore);
    }
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
    }
  }

  /** Somebody waits for these pages: they are read before all others. @returns how many are being restored here */
  hurry(block: number, page: number, count: number): number {
    let pages = 0;
    for (const restore of this.#restores.of(block, page, count)) {
      pages += Restores.overlap(restore, page, count);
      this.#begin(restore);
    }
    return pages;
  }

  #begin(restore: Restore): void {
    if (restore.isBegun || this.#isStopped) return;
    restore.isBegun = true;
    const lengthBytes = restore.run.count * pageBytes;
    this.#readingBytes += lengthBytes;
    void this.#restore(restore, lengthBytes).finally(() => {
      this.#readingBytes -= lengthBytes;
      this.start();
    });
  }

  /** The source's bytes of a run that was asked for again. @throws RelayError when nobody asked, or they are others */
  resent(sequence: number, { record, encoding, packed }: Resend): void {
    const restore = this.#asked.get(key(sequence, record));
    if (restore === undefined)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent what nobody asked for');
    this.#asked.delete(key(sequence, record));
    const bytes = unpackPages(encoding, packed, restore.run.count * pageBytes);
    if (!this.#digester.digest(bytes).equals(restore.run.digest!))
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent other pages than it had referred to');
    this.#finish(restore, bytes);
  }

  /** Resolves when all runs are in place, or restoring was stopped. */
  async idle(): Promise<void> {
    if (this.pending === 0 || this.#isStopped) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle = resolve;
    });
    this.#whenIdle = null;
  }

  /** Places nothing from now on. */
  stop(): void {
    this.#isStopped = true;
    this.#whenIdle?.();
  }

  /** Reads a run from the disk. Whatever is wrong with it, the source still has the bytes. */
  async #restore(restore: Restore, lengthBytes: number): Promise<void> {
    const { run, sequence, record } = restore;
    if (run.disk === heldDisk) {
      const held = this.#held?.take(run.block, run.page, run.count, run.digest!) ?? null;
      if (held !== null) return this.#finish(restore, held);
    }
    let bytes: Buffer | null = null;
    try {
      const allocate = () => this.#pool.acquire().subarray(0, lengthBytes);
      bytes = (await this.#disks[run.disk]?.read(run.diskOffsetBytes, lengthBytes, allocate)) ?? null;
    } catch (thrown) {
      const isSilent = thrown instanceof DiskError && thrown.code === 'VMMIG_DISK_SILENT';
      if (isSilent && !this.#isStopped && this.#sink.storageSilent(thrown)) return;
      // Beyond the end, or unreadable: as good as a mismatch.
    }
    if (this.#isStopped) return;
    if (bytes !== null) this.#counters.bytes.restored += lengthBytes;
    if (bytes !== null && this.#digester.digest(bytes).equals(run.digest!)) {
      this.#counters.pages.restored += run.count;
      this.#finish(restore, bytes);
    } else {
      this.#asked.set(key(sequence, record), restore);
      if (run.disk !== heldDisk) this.#counters.pages.mismatched += run.count;
      if (bytes !== null) this.#disks[run.disk]?.doubt?.();
      this.#sink.askAgain(sequence, record);
    }
    if (bytes !== null) this.#pool.release(Buffer.from(bytes.buffer));
  }

  /** Places those pages of the run of which no newer version has arrived. */
  #finish(restore: Restore, bytes: Buffer): void {
    const { run, overtaken, sequence } = restore;
    for (let from = 0; from < run.count; ) {
      if (overtaken[from] === 1) {
        from++;
        continue;
      }
      let to = from + 1;
      while (to < run.count && overtaken[to] === 0) to++;
      this.#sink.place(run, from, to, bytes);
      from = to;
    }
    this.#restores.finish(restore);
    const left = this.#unresolved.get(sequence)! - 1;
    if (left > 0) this.#unresolved.set(sequence, left);
    else {
      this.#unresolved.delete(sequence);
      this.#sink.batchDone(sequence);
    }
    if (this.pending === 0) this.#whenIdle?.();
  }
}

function key(sequence: number, record: number): string {
  return `${sequence}/${record}`;
}
