/**
 * Answers what the guest at the destination waits for: with what is next to it in the same answer, because that takes
 * hardly longer, and with what follows before the rest.
 */
import type { RelayCounters } from '../../counters.js';
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { maxBatchPages } from '../../link/batch.js';
import { answeredPages, decodeFault, type FaultedPages } from '../../link/faults.js';
import { maxHostPage } from '../../link/hostPages.js';
import type { BatchSender } from './batchSender.js';

/** Come next. */
const neighbourPages = 32;
/** A guest has not nearly as many processors. */
const maxWaiting = 4096;

export class FaultAnswers {
  readonly #counters: RelayCounters;
  readonly #answered: () => void;
  /** Null: they are answered at once. */
  #waiting: FaultedPages[] | null = null;

  /** @param answered - the rest may go on */
  constructor(counters: RelayCounters, answered: () => void) {
    this.#counters = counters;
    this.#answered = answered;
  }

  /** Faults wait until `release`; those that wait already are forgotten. */
  hold(): void {
    this.#waiting = [];
  }

  release(batches: BatchSender): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const faulted of waiting) this.#answer(faulted, batches);
  }

  /** After the switch. @throws RelayError when there are no such pages */
  answer(fault: Buffer, batches: BatchSender): void {
    const faulted = decodeFault(fault);
    const lengthBytes = batches.blocks[faulted.block]?.lengthBytes ?? 0;
    const isThere = faulted.count > 0 && (faulted.page + faulted.count) * pageBytes <= lengthBytes;
    if (!isThere || faulted.count > maxHostPage)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asked for what there is not');
    if (this.#waiting === null) return this.#answer(faulted, batches);
    if (this.#waiting.length === maxWaiting)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asks for more than a guest waits for');
    this.#waiting.push(faulted);
  }

  #answer(faulted: FaultedPages, batches: BatchSender): void {
    const { block, page, count } = answeredPages(faulted);
    this.#counters.pages.faulted += faulted.count;
    // A huge page takes several.
    while (batches.answer(block, page, count) && faulted.count > maxBatchPages);
    batches.store.moveToFront(block, page + count, neighbourPages);
    this.#answered();
  }
}
