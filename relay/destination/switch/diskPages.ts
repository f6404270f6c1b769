/**
 * What is here of the guest's memory already: on this host's disks, and held of what was sent ahead. It is put in place
 * when the source refers to it, and some of the disks' before. When the disks may be read follows from how far the switch
 * has come, and from what QEMU has not taken yet.
 */
import type { DiskReader } from '../../../disk/diskReader.js';
import type { HeldPages } from '../../../pager/index.js';
import type { RelayCounters } from '../../counters.js';
import { pageBytes, type RunDigester } from '../../digest.js';
import type { BatchRecord } from '../../link/batch.js';
import type { HintRun } from '../../link/hints.js';
import type { Resend } from '../../link/resend.js';
import type { PageRun } from '../postcopy/blockPages.js';
import type { PostcopyStream } from '../postcopy/postcopyStream.js';
import { Prefetcher } from '../prefetcher.js';
import { Restorer, type RestorerSink } from '../restorer.js';
import type { SwitchPhases } from './phases.js';
import { SpareProcessors } from './spareProcessors.js';

export interface DiskPagesOptions {
  readonly disks: readonly DiskReader[];
  readonly held: HeldPages;
  readonly digester: RunDigester;
  readonly counters: RelayCounters;
  readonly pagesOfBlock: readonly number[];
}

/** Read ahead of QEMU, and not yet taken by it: little once the guest runs, because its faults wait behind. */
const reading = { before: 2 * 1024 * 1024, after: 512 * 1024 };
const maxBacklogBytes = { before: 512 * 1024, after: 128 * 1024 };
/** Of huge host pages that are not complete, while more of the kind is read from the disk. */
const maxCollectedBytes = 64 * 1024 * 1024;

export class DiskPages {
  readonly #stream: PostcopyStream;
  readonly #phases: Readonly<SwitchPhases>;
  readonly #restorer: Restorer;
  readonly #prefetcher: Prefetcher;
  readonly #processors = new SpareProcessors(() => this.readOn());
  /** A frame's pages wait for QEMU: restoring, which comes after it, does not add to what it waits for. */
  #isWaiting = false;

  constructor(
    stream: PostcopyStream,
    phases: Readonly<SwitchPhases>,
    { disks, held, digester, counters, pagesOfBlock }: DiskPagesOptions,
    sink: Pick<RestorerSink, 'askAgain' | 'storageSilent' | 'batchDone'>,
  ) {
    this.#stream = stream;
    this.#phases = phases;
    this.#restorer = new Restorer(
      disks,
      digester,
      counters,
      pagesOfBlock,
      {
        ...sink,
        place: (run, from, to, bytes) => {
          void stream.place(run.block, run.page + from, to - from, bytes, from * pageBytes, 'local');
          this.#processors.worked((to - from) * pageBytes);
        },
        mayRead: () => this.#mayRead(),
      },
      { maxReadingBytes: reading.before, held },
    );
    this.#prefetcher = new Prefetcher(
      disks,
      digester,
      counters,
      pagesOfBlock,
      {
        place: (run, bytes) => {
          void stream.place(run.block, run.page, run.count, bytes, 0, 'local');
          this.#processors.worked(run.count * pageBytes);
        },
        mayPlace: () =>
          this.#hasTime &&
          !this.#isWaiting &&
          this.#restorer.pending === 0 &&
          stream.backlogBytes < maxBacklogBytes.before,
      },
      reading.before,
    );
  }

  /** Runs that were referred to and are not in place yet. */
  get pending(): number {
    return this.#restorer.pending;
  }

  /** Before the switch: these may be referred to. */
  hint(runs: readonly HintRun[]): void {
    this.#prefetcher.add(runs);
  }

  /** To be asked before `overtake`. @returns whether what the reference is about is in place */
  has(run: BatchRecord): boolean {
    return this.#prefetcher.has(run);
  }

  /** The source has told of these pages: what is being read of them must not replace it. */
  overtake({ block, page, count }: PageRun): void {
    this.#restorer.overtake(block, page, count);
    this.#prefetcher.overtake(block, page, count);
  }

  /** The source refers to a run; `restore` begins to read. */
  refer(sequence: number, record: number, run: BatchRecord): void {
    this.#restorer.add(sequence, record, run);
  }

  /** Reads what was referred to, as far as QEMU takes it. */
  restore(): void {
    this.#restorer.start();
  }

  /** Whatever kept the disks from being read may be over. */
  readOn(): void {
    this.#restorer.start();
    this.#prefetcher.start();
  }

  /** Somebody waits for these pages: they are read before all others. @returns how many are being restored here */
  hurry({ block, page, count }: PageRun): number {
    return this.#restorer.hurry(block, page, count);
  }

  /** The source's bytes of a run that was asked for again. @throws RelayError when nobody asked, or they are others */
  resent(sequence: number, resend: Resend): void {
    this.#restorer.resent(sequence, resend);
  }

  /** Waits until QEMU takes more. Nothing is read meanwhile. */
  async drained(): Promise<void> {
    this.#isWaiting = true;
    await this.#stream.drained();
    this.#isWaiting = false;
    this.readOn();
  }

  /** From now on only what was referred to is read. @returns what was put in place and never referred to */
  endPrefetch(): PageRun[] {
    return this.#prefetcher.stop();
  }

  /** The guest has switched, or is about to. */
  readLess(): void {
    this.#processors[Symbol.dispose]();
    this.#restorer.maxReadingBytes = reading.after;
  }

  /** Puts nothing in place from now on. */
  stop(): void {
    this.#processors[Symbol.dispose]();
    this.#restorer.stop();
    this.#prefetcher.stop();
  }

  /** The guest runs here, or nobody else's time is taken for it. */
  get #hasTime(): boolean {
    return this.#phases.hasSwitched || this.#processors.mayWork;
  }

  #mayRead(): boolean {
    const { hasSwitched, isLoading } = this.#phases;
    if (isLoading || !this.#hasTime || this.#isWaiting || this.#stream.collectedBytes >= maxCollectedBytes)
      return false;
    return this.#stream.backlogBytes < (hasSwitched ? maxBacklogBytes.after : maxBacklogBytes.before);
  }
}
