/**
 * What QEMU's first pass has still ahead of it, from a look at a few of those pages: for telling when the guest will have
 * moved. Nothing depends on it: where QEMU's memory cannot be read, nothing is known.
 */
import { setTimeout as delay } from 'node:timers/promises';
import {
  type GuestInspection,
  lookAt,
  PhysicalMemory,
  type QmpMonitor,
  type RunContents,
  runsToLookAt,
  type SampledRun,
} from '../hypervisor/index.js';
import type { PageFate } from '../relay/source/streamToFrames.js';
import { compressOnce } from '../relay/zstd.js';
import { type Written, WrittenMemory } from './writtenMemory.js';

/** The guest goes on, and writes. */
const lookAgainMs = 2_500;

export interface Ahead {
  /** Pages that are not zero: QEMU sends them, and some need not cross the link. */
  readonly pages: number;
  /** What the link will have to carry. */
  readonly bytes: number;
  /** What comes to that because the guest writes; null before it is known. */
  readonly written: Written | null;
}

export type FateOf = (block: string, page: number) => PageFate;

export class MemoryAhead implements Disposable {
  readonly #opening: Promise<PhysicalMemory | null>;
  readonly #runs: readonly SampledRun[];
  readonly #written: WrittenMemory;
  readonly #isCompressed: boolean;
  readonly #ended = new AbortController();
  #found: readonly (RunContents | null)[] | null = null;
  #watching: Promise<void> = Promise.resolve();

  /** @param compress - whether the relay does */
  constructor(qmp: QmpMonitor, { process, memory }: GuestInspection, { compress }: { readonly compress: boolean }) {
    this.#runs = runsToLookAt(memory.gpaMap);
    this.#written = new WrittenMemory(this.#runs);
    this.#isCompressed = compress;
    this.#opening = PhysicalMemory.open(qmp, process, memory.gpaMap, this.#ended.signal).catch(() => null);
  }

  /** QEMU sets out. */
  watch(fateOf: FateOf): void {
    // It is a guess; a migration does not fail for it.
    this.#watching = this.#watch(fateOf).catch(() => {});
  }

  /** Null before it is known. */
  estimate(fateOf: FateOf): Ahead | null {
    if (this.#found === null) return null;
    return { ...aheadOf(this.#runs, this.#found, fateOf), written: this.#written.found };
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    void Promise.all([this.#opening, this.#watching]).then(([memory]) => memory?.[Symbol.dispose]());
  }

  async #watch(fateOf: FateOf): Promise<void> {
    const memory = await this.#opening;
    const { signal } = this.#ended;
    while (memory !== null && !signal.aborted) {
      const isAhead = this.#runs.map(({ block, page }) => fateOf(block, page) !== 'passed');
      if (!isAhead.includes(true)) return;
      const found = await this.#look(memory);
      this.#found = found;
      this.#written.looked(performance.now(), found, (run) => !isAhead[run]);
      await delay(lookAgainMs, undefined, { signal, ref: false });
    }
  }

  async #look(memory: PhysicalMemory): Promise<(RunContents | null)[]> {
    const { signal } = this.#ended;
    const found: (RunContents | null)[] = [];
    for (const run of this.#runs)
      found.push(signal.aborted ? null : await lookAt(memory, run, (pages) => this.#sentBytes(pages)));
    return found;
  }

  #sentBytes(pages: Buffer): number {
    return this.#isCompressed ? Math.min(pages.length, compressOnce(pages).length) : pages.length;
  }
}

/** @param found - of each run; null for what was not looked at */
export function aheadOf(
  runs: readonly SampledRun[],
  found: readonly (Pick<RunContents, 'pages' | 'bytes'> | null)[],
  fateOf: FateOf,
): Omit<Ahead, 'written'> {
  let pages = 0;
  let bytes = 0;
  for (const [at, { block, page, weight }] of runs.entries()) {
    const contents = found[at];
    const fate = contents == null ? 'passed' : fateOf(block, page);
    if (fate === 'passed') continue;
    pages += contents!.pages * weight;
    if (fate === 'sent') bytes += contents!.bytes * weight;
  }
  return { pages: Math.round(pages), bytes: Math.round(bytes) };
}
