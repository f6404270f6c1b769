/**
 * What came of huge host pages is not safe in QEMU before it has all of such a page: until the switch because a host
 * page of which one page is stale is dropped as a whole, after it because QEMU is given none before it is complete. So
 * what has brought them is not acknowledged before, and the source keeps it. Blocks in small pages are no matter here.
 */
import type { BatchRecord } from '../link/batch.js';

export interface ReceiptSink {
  acknowledge(sequence: number): void;
  /** QEMU has dropped what it brought: it is needed again. */
  giveBack(sequence: number): void;
}

interface Waiting {
  /** Pages in huge host pages, as triples of block, first page and count. */
  readonly runs: number[];
  /** All that it brought has been read, and handed over as far as it can be. */
  isDone: boolean;
}

export class HostPageReceipts {
  readonly #pagesPerHostPage: readonly number[];
  /** Whether QEMU has a page, or needs none because it is zero. */
  readonly #isHere: (block: number, page: number) => boolean;
  readonly #sink: ReceiptSink;
  readonly #waiting = new Map<number, Waiting>();
  #hasSwitched = false;

  /** @param pagesPerHostPage for each block */
  constructor(
    pagesPerHostPage: readonly number[],
    isHere: (block: number, page: number) => boolean,
    sink: ReceiptSink,
    hasSwitched: boolean,
  ) {
    this.#pagesPerHostPage = pagesPerHostPage;
    this.#isHere = isHere;
    this.#sink = sink;
    this.#hasSwitched = hasSwitched;
  }

  isHuge(block: number): boolean {
    return this.#pagesPerHostPage[block]! > 1;
  }

  /** The host page that a page of a huge block is in: its first page, and how many it has. */
  hostPage(block: number, page: number): { readonly page: number; readonly count: number } {
    const count = this.#pagesPerHostPage[block]!;
    return { page: page - (page % count), count };
  }

  /** A batch has come. */
  expect(sequence: number, records: readonly BatchRecord[]): void {
    const runs: number[] = [];
    for (const { block, page, count } of records) if (this.isHuge(block)) runs.push(block, page, count);
    if (runs.length > 0) this.#waiting.set(sequence, { runs, isDone: false });
  }

  /** All that a batch brought has been handed over: to QEMU, or where it waits for the rest of its host page. */
  done(sequence: number): void {
    const waiting = this.#waiting.get(sequence);
    if (waiting === undefined) return this.#sink.acknowledge(sequence);
    waiting.isDone = true;
    this.look();
  }

  /** QEMU has been told what to drop. */
  switched(): void {
    this.#hasSwitched = true;
    for (const [sequence, { runs, isDone }] of this.#waiting) {
      if (!isDone || this.#areHere(runs)) continue;
      this.#waiting.delete(sequence);
      this.#sink.giveBack(sequence);
    }
    this.look();
  }

  /** Something has been handed to QEMU. */
  look(): void {
    if (!this.#hasSwitched) return;
    for (const [sequence, { runs, isDone }] of this.#waiting) {
      if (!isDone || !this.#areHere(runs)) continue;
      this.#waiting.delete(sequence);
      this.#sink.acknowledge(sequence);
    }
  }

  /** Takes away what need not be looked at again: what is here after the switch stays. */
  #areHere(runs: number[]): boolean {
    while (runs.length > 0) {
      const [block, first, count] = runs.slice(-3) as [number, number, number];
      for (let page = first; page < first + count; page++) if (!this.#isHere(block, page)) return false;
      runs.length -= 3;
    }
    return true;
  }
}
