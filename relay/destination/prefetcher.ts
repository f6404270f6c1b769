/**
 * Puts page cache back before the source's stream has come to it: while the link is busy with what only the source has,
 * this host's disk and QEMU have nothing else to do. It works by the source's hints, and what it places is worth
 * nothing until a reference with the same digest confirms it; the stream's own version of a page replaces it.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import { BufferPool } from '../bufferPool.js';
import type { RelayCounters } from '../counters.js';
import { pageBytes, type RunDigester } from '../digest.js';
import { type BatchRecord, maxReferencePages } from '../link/batch.js';
import type { HintRun } from '../link/hints.js';
import { HintedRuns, runState } from './hintedRuns.js';

export interface PrefetcherSink {
  place(run: HintRun, bytes: Buffer, digest: Buffer): void;
  /** Whether there is nothing better to do: what the stream asks for comes first. */
  mayPlace(): boolean;
}

const defaultReadingBytes = 8 * 1024 * 1024;
const maxFreeBuffers = 32;
/** So far ahead of the stream it stays: what comes next is being asked for by the stream itself. */
const leadRuns = 64;

export class Prefetcher {
  readonly #disks: readonly DiskReader[];
  readonly #digester: RunDigester;
  readonly #counters: RelayCounters;
  readonly #sink: PrefetcherSink;
  readonly #pool = new BufferPool(maxReferencePages * pageBytes, maxFreeBuffers);
  readonly #runs = new HintedRuns();
  /** For each page 1 + its run's place in `#runs`, 0 where there is none. */
  readonly #runOfPage: Uint32Array[];
  /** One bit a page: the stream has said what belongs there. */
  readonly #told: Uint8Array[];
  #next = 0;
  #readingBytes = 0;
  #isStopped = false;

  constructor(
    disks: readonly DiskReader[],
    digester: RunDigester,
    counters: RelayCounters,
    pagesOfBlock: readonly number[],
    sink: PrefetcherSink,
    /** Being read from disk at a time. */
    private readonly maxReadingBytes = defaultReadingBytes,
  ) {
    this.#disks = disks;
    this.#digester = digester;
    this.#counters = counters;
    this.#sink = sink;
    this.#runOfPage = pagesOfBlock.map((pages) => new Uint32Array(pages));
    this.#told = pagesOfBlock.map((pages) => new Uint8Array((pages >> 3) + 1));
  }

  /** Left out are runs of more than `maxReferencePages`, and pages that were hinted at before or that the stream has told. */
  add(runs: readonly HintRun[]): void {
    for (const run of runs) {
      const runOfPage = this.#runOfPage[run.block]!;
      if (run.count > maxReferencePages || this.#disks[run.disk] === undefined) continue;
      if (!this.#isNew(run, runOfPage)) continue;
      this.#runs.add(run);
      runOfPage.fill(this.#runs.count, run.page, run.page + run.count);
    }
    this.start();
  }

  /** The stream says what belongs in these pages. */
  overtake(block: number, page: number, count: number): void {
    const told = this.#told[block]!;
    for (let at = page; at < page + count; at++) told[at >> 3]! |= 1 << (at & 7);
    const runs = this.#runs;
    if (runs.count === 0) return;
    const runOfPage = this.#runOfPage[block]!;
    for (let at = page; at < page + count; at++) {
      const number = runOfPage[at]!;
      if (number === 0) continue;
      runs.state[number - 1] = runState.gone;
      if (number + leadRuns > this.#next) this.#next = number + leadRuns;
      at = runs.page[number - 1]! + runs.length[number - 1]! - 1;
    }
  }

  /** To be asked before {@link overtake}. @returns whether what the reference is about is in place, wherever it was read */
  has({ block, page, count, digest }: BatchRecord): boolean {
    const runs = this.#runs;
    const at = this.#runOfPage[block]![page]! - 1;
    if (at < 0 || runs.state[at] !== runState.placed || runs.page[at] !== page || runs.length[at] !== count)
      return false;
    return runs.hasDigest(at, digest!);
  }

  /** Reads on as far as there is room for it. */
  start(): void {
    while (this.#next < this.#runs.count && !this.#isStopped) {
      if (this.#readingBytes >= this.maxReadingBytes || !this.#sink.mayPlace()) return;
      const at = this.#next++;
      if (this.#runs.state[at] === runState.waiting) void this.#fetch(at);
    }
  }

  /** Reads and places nothing from now on. @returns what was placed and never confirmed nor replaced, in runs */
  stop(): { block: number; page: number; count: number }[] {
    this.#isStopped = true;
    const left: { block: number; page: number; count: number }[] = [];
    for (let run = 0; run < this.#runs.count; run++) {
      if (this.#runs.wasPlaced[run] === 0) continue;
      const { block, page, count } = this.#runs.get(run);
      const told = this.#told[block]!;
      for (let at = page; at < page + count; at++)
        if ((told[at >> 3]! & (1 << (at & 7))) === 0) left.push({ block, page: at, count: 1 });
    }
    return left;
  }

  #isNew({ block, page, count }: HintRun, runOfPage: Uint32Array): boolean {
    const told = this.#told[block]!;
    for (let at = page; at < page + count; at++)
      if (runOfPage[at] !== 0 || (told[at >> 3]! & (1 << (at & 7))) !== 0) return false;
    return true;
  }

  async #fetch(at: number): Promise<void> {
    const run = this.#runs.get(at);
    const lengthBytes = run.count * pageBytes;
    this.#runs.state[at] = runState.reading;
    this.#readingBytes += lengthBytes;
    let bytes: Buffer | null = null;
    try {
      const allocate = () => this.#pool.acquire().subarray(0, lengthBytes);
      bytes = await this.#disks[run.disk]!.read(run.diskOffsetBytes, lengthBytes, allocate);
    } catch {
      // What cannot be read is not in place, and the source will be told so when it refers to it.
    }
    this.#readingBytes -= lengthBytes;
    if (bytes !== null) {
      this.#counters.bytes.restored += lengthBytes;
      if (!this.#isStopped && this.#runs.state[at] === runState.reading) {
        const digest = this.#digester.digest(bytes);
        this.#runs.setPlaced(at, digest);
        this.#sink.place(run, bytes, digest);
      }
      this.#pool.release(Buffer.from(bytes.buffer));
    }
    this.start();
  }
}
