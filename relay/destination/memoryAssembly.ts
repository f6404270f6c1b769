/**
 * The guest's memory as the destination relay puts it together: what a batch brings goes to QEMU at once, what it refers
 * to when this host's disk has been read, and some of that before. What became of each page is noted in the digest.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import type { DiskError } from '../../disk/errors.js';
import type { HeldPages } from '../../pager/index.js';
import type { RelayCounters } from '../counters.js';
import { type BlockSize, MemoryDigest, pageBytes, pagesOfBlocks, type RunDigester } from '../digest.js';
import { decodeBatch, recordKind } from '../link/batch.js';
import { decodeHints, type RunInPlace } from '../link/hints.js';
import type { Resend } from '../link/resend.js';
import { Prefetcher } from './prefetcher.js';
import type { QemuStream } from './qemuStream.js';
import { Restorer, type RestorerSink } from './restorer.js';

export interface MemoryAssemblyOptions {
  readonly blocks: readonly BlockSize[];
  readonly disks: readonly DiskReader[];
  readonly digester: RunDigester;
  readonly counters: RelayCounters;
  /** What was sent ahead. */
  readonly held: HeldPages;
}

export interface MemoryAssemblyHandlers {
  /** A run was read ahead, and has this digest. */
  inPlace(run: RunInPlace): void;
  /** The disk does not hold a run: its bytes are needed after all. */
  askAgain(sequence: number, record: number): void;
  /** The storage does not answer: the guest could not run here. */
  storageSilent(error: DiskError): void;
  /** All that a batch brought is in place. */
  batchDone(sequence: number): void;
}

/** Written and not yet taken by QEMU, beyond which no more is read from disk. */
const maxBacklogBytes = 4 * 1024 * 1024;
/** Written ahead of the stream and not yet taken by QEMU: little, because the stream's own pages wait behind it. */
const maxPrefetchBacklogBytes = 1024 * 1024;

export class MemoryAssembly {
  readonly digest: MemoryDigest;
  readonly #qemu: QemuStream;
  readonly #options: MemoryAssemblyOptions;
  readonly #handlers: MemoryAssemblyHandlers;
  readonly #pagesOfBlock: readonly number[];
  readonly #restorer: Restorer;
  readonly #prefetcher: Prefetcher;

  constructor(qemu: QemuStream, options: MemoryAssemblyOptions, handlers: MemoryAssemblyHandlers) {
    this.#qemu = qemu;
    this.#options = options;
    this.#handlers = handlers;
    this.digest = new MemoryDigest(options.blocks);
    this.#pagesOfBlock = pagesOfBlocks(options.blocks);
    this.#restorer = this.#newRestorer();
    this.#prefetcher = this.#newPrefetcher();
  }

  /** Runs that are being restored. */
  get pending(): number {
    return this.#restorer.pending;
  }

  /** What the source may refer to. */
  hint(payload: Buffer): void {
    this.#prefetcher.add(decodeHints(payload, this.#pagesOfBlock));
  }

  /** @throws RelayError VMMIG_LINK_PROTOCOL when the payload is no batch of this guest's pages */
  batch(sequence: number, payload: Buffer): void {
    const { digester, counters } = this.#options;
    const { records, pages } = decodeBatch(payload, this.#pagesOfBlock);
    let at = 0;
    let references = 0;
    for (const [index, run] of records.entries()) {
      const { kind, block, page, count, fill } = run;
      const isInPlace = kind === recordKind.reference && this.#prefetcher.has(run);
      this.#restorer.overtake(block, page, count);
      this.#prefetcher.overtake(block, page, count);
      if (isInPlace) {
        this.digest.setRun(block, page, 0, count, run.digest!);
        counters.pages.restored += count;
      } else if (kind === recordKind.fill) {
        this.digest.setFill(block, page, count, fill);
        counters.pages.zero += count;
        this.#qemu.fill(block, page, count, fill);
      } else if (kind === recordKind.bytes) {
        const bytes = pages.subarray(at, at + count * pageBytes);
        this.digest.setRun(block, page, 0, count, digester.digest(bytes));
        this.#qemu.pages(block, page, count, bytes, 0);
        counters.pages.sent += count;
        at += bytes.length;
      } else {
        references++;
        this.#restorer.add(sequence, index, run);
      }
    }
    this.#qemu.flush();
    this.#restorer.start();
    if (references === 0) this.#handlers.batchDone(sequence);
  }

  /** The source's bytes of a run that was asked for again. @throws RelayError when nobody asked, or they are others */
  resent(sequence: number, resend: Resend): void {
    this.#restorer.resent(sequence, resend);
  }

  /** Reads on. To be called whenever QEMU has taken some. */
  readOn(): void {
    this.#restorer.start();
    this.#prefetcher.start();
  }

  /** Resolves when all that was referred to is in place. */
  async restored(): Promise<void> {
    await this.#restorer.idle();
  }

  /** Nothing more comes. QEMU takes a page that the source never sent for zeroes. */
  end(): void {
    for (const { block, page, count } of this.#prefetcher.stop()) this.#qemu.fill(block, page, count, 0);
    this.#options.held.clear();
  }

  /** Places nothing from now on. */
  stop(): void {
    this.#restorer.stop();
    this.#prefetcher.stop();
  }

  #newPrefetcher(): Prefetcher {
    const { disks, digester, counters } = this.#options;
    return new Prefetcher(disks, digester, counters, this.#pagesOfBlock, {
      place: ({ block, page, count }, bytes, digest) => {
        this.#qemu.pages(block, page, count, bytes, 0);
        this.#qemu.flush();
        this.#handlers.inPlace({ block, page, digest });
      },
      mayPlace: () => this.#restorer.pending === 0 && this.#qemu.backlogBytes < maxPrefetchBacklogBytes,
    });
  }

  #newRestorer(): Restorer {
    const { disks, digester, counters, held } = this.#options;
    const sink: RestorerSink = {
      place: (run, from, to, bytes) => {
        this.digest.setRun(run.block, run.page, from, to, run.digest!);
        this.#qemu.pages(run.block, run.page + from, to - from, bytes, from * pageBytes);
        this.#qemu.flush();
      },
      askAgain: (sequence, record) => this.#handlers.askAgain(sequence, record),
      storageSilent: (error) => {
        this.#handlers.storageSilent(error);
        return true;
      },
      batchDone: (sequence) => this.#handlers.batchDone(sequence),
      mayRead: () => this.#qemu.backlogBytes < maxBacklogBytes,
    };
    return new Restorer(disks, digester, counters, this.#pagesOfBlock, sink, { held });
  }
}
