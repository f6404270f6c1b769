/**
 * What the guest will look at first when it goes on. While QEMU loads it nothing can be asked for, and afterwards each
 * such page would cost a round trip: so some of it goes with the device state, and some before the rest.
 */
import type { RelayCounters } from '../../counters.js';
import type { FilePages } from '../filePages.js';
import { type MemoryStretch, pagesOf } from '../memoryStretch.js';
import type { BatchSender } from './batchSender.js';
import { pagesAtATime } from './pump.js';

export interface ExpectedUse {
  /** While it stands still, or as soon as it does not: goes with the device state. */
  readonly now: readonly MemoryStretch[];
  /** Goes before the rest. */
  readonly soon: readonly MemoryStretch[];
}

/** Sent with the device state. At 200 Mbit/s, and compressed, some 15 ms of the guest's pause. */
const maxHotPages = 256;

export class HotPages {
  readonly #counters: RelayCounters;
  readonly #files: Pick<FilePages, 'written'> | null;
  #expected: ExpectedUse = { now: [], soon: [] };

  /** @param files - null: all of the guest's memory comes through QEMU's stream */
  constructor(counters: RelayCounters, files: Pick<FilePages, 'written'> | null) {
    this.#counters = counters;
    this.#files = files;
  }

  /** In place of what was expected before. */
  expect(expected: ExpectedUse): void {
    this.#expected = expected;
  }

  /** What is needed soon goes before the rest. */
  favour({ store, blocks }: BatchSender): void {
    for (const range of pagesOf(this.#expected.soon, blocks)) store.favour(range);
  }

  /** The guest has stopped. What it wrote last it will touch first, its devices' rings above all. */
  send(batches: BatchSender): void {
    batches.store.prefer('recent');
    const { seen } = this.#counters.pages;
    let left = Math.min(maxHotPages, seen - this.#counters.totalPages);
    for (; left > 0; left -= pagesAtATime.after) if (!batches.send(Math.min(left, pagesAtATime.after))) break;
    const written = this.#files?.written.slice(0, maxHotPages).map((page) => ({ ...page, count: 1 })) ?? [];
    for (const { block, page, count } of [...pagesOf(this.#expected.now, batches.blocks), ...written])
      batches.sendNow(block, page, count);
  }
}
