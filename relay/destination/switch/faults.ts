/**
 * What the guest waits for. What is not here is asked of the source, whose answer overtakes everything and does not wait
 * for QEMU: so it is taken only as far as it was asked for.
 */
import { RelayError } from '../../errors.js';
import { type Batch, decodeBatch, recordKind } from '../../link/batch.js';
import type { DurableLink } from '../../link/durableLink.js';
import { answeredPages, encodeFault, groupPages } from '../../link/faults.js';
import { frameType } from '../../link/frames.js';
import type { PageRun } from '../postcopy/blockPages.js';
import { pageKey } from '../postcopy/faults.js';
import type { Guest } from './guest.js';

/** Looked through when they have become so many more. */
const sweepGroups = 1024;

export class Faults {
  /** Groups of pages that were asked for and were not all here when they were last looked at. */
  readonly #asked = new Map<number, { readonly block: number; readonly page: number }>();
  #sweepAt = sweepGroups;

  /** The guest waits for these pages. */
  raise(run: PageRun, guest: Guest, link: Pick<DurableLink, 'sendUrgent'>): void {
    const here = guest.disks.hurry(run);
    if (here === run.count) return;
    const { block, page, count } = answeredPages(run);
    for (let at = page; at < page + count; at += groupPages) this.#asked.set(pageKey(block, at), { block, page: at });
    if (this.#asked.size >= this.#sweepAt) this.#sweep(guest);
    link.sendUrgent(frameType.fault, encodeFault(run));
  }

  /** @throws RelayError VMMIG_LINK_PROTOCOL when nobody asked for these pages */
  answered(payload: Buffer, { pagesOfBlock }: Guest): Batch {
    const batch = decodeBatch(payload, pagesOfBlock);
    for (const { kind, block, page, count } of batch.records) {
      if (kind !== recordKind.bytes) continue;
      for (let at = page - (page % groupPages); at < page + count; at += groupPages)
        if (!this.#asked.has(pageKey(block, at)))
          throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay answered what nobody asked');
    }
    return batch;
  }

  /** Whoever was asked does not answer any more. */
  forget(): void {
    this.#asked.clear();
    this.#sweepAt = sweepGroups;
  }

  /** Nothing more is to come of a group that is all here: the source sends every page once. */
  #sweep({ pagesOfBlock, stream }: Guest): void {
    for (const [key, { block, page }] of this.#asked) {
      const end = Math.min(page + groupPages, pagesOfBlock[block]!);
      let at = page;
      while (at < end && stream.isHere(block, at)) at++;
      if (at === end) this.#asked.delete(key);
    }
    this.#sweepAt = this.#asked.size + sweepGroups;
  }
}
