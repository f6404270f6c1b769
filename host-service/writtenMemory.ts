/**
 * What a guest writes while its memory is copied, from looks at the same few pages again and again: QEMU tells only when its
 * first pass is over. Memory that is written to again and again between two looks counts once, as it does for QEMU.
 */
import type { RunContents, SampledRun } from '../hypervisor/index.js';

export interface Written {
  /** Since QEMU's first pass came past: to be sent again. */
  readonly behindBytes: number;
  readonly bytesPerSecond: number;
  /** Of all memory that was seen to be written to, wherever the first pass is. */
  readonly everBytes: number;
  /** By how much that has grown. */
  readonly newBytesPerSecond: number;
}

/** What is known of a run of pages: a mark for each. */
interface Watched {
  last: readonly number[];
  /** When the first pass had come past; null before. */
  passed: readonly number[] | null;
  readonly written: boolean[];
}

const perSecond = (bytes: number, ms: number) => (bytes * 1000) / Math.max(1, ms);

export class WrittenMemory {
  readonly #runs: readonly SampledRun[];
  readonly #watched: (Watched | null)[];
  #lookedAtMs: number | null = null;
  #found: Written | null = null;

  constructor(runs: readonly SampledRun[]) {
    this.#runs = runs;
    this.#watched = runs.map(() => null);
  }

  /** Null before the second look. */
  get found(): Written | null {
    return this.#found;
  }

  /**
   * @param contents - of each run; null for what could not be looked at
   * @param hasPassed - whether the first pass had come past the run of that number
   */
  looked(atMs: number, contents: readonly (RunContents | null)[], hasPassed: (run: number) => boolean): void {
    const sum = { behind: 0, since: 0, ever: 0, isNew: 0 };
    for (const [at, found] of contents.entries()) {
      if (found === null) continue;
      const { marks, bytes, pages } = found;
      const watched = this.#watched[at] ?? { last: marks, passed: null, written: marks.map(() => false) };
      const bytesPerPage = (pages === 0 ? 0 : bytes / pages) * this.#runs[at]!.weight;
      for (const [page, mark] of marks.entries()) {
        const isWritten = mark !== watched.last[page];
        if (isWritten) sum.since += bytesPerPage;
        if (isWritten && !watched.written[page]) sum.isNew += bytesPerPage;
        watched.written[page] ||= isWritten;
        if (watched.written[page]) sum.ever += bytesPerPage;
        if (watched.passed !== null && mark !== watched.passed[page]) sum.behind += bytesPerPage;
      }
      watched.last = marks;
      if (hasPassed(at)) watched.passed ??= marks;
      this.#watched[at] = watched;
    }
    if (this.#lookedAtMs !== null) {
      const ms = atMs - this.#lookedAtMs;
      this.#found = {
        behindBytes: sum.behind,
        bytesPerSecond: perSecond(sum.since, ms),
        everBytes: sum.ever,
        newBytesPerSecond: perSecond(sum.isNew, ms),
      };
    }
    this.#lookedAtMs = atMs;
  }
}
