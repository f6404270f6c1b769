/**
 * What the guest waits for. What is not here is asked of the source, whose answer overtakes everything and does not wait
 * for QEMU: so it is taken only as far as it was asked for.
 */
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { type Batch, decodeBatch } from '../../link/batch.js';
import type { DurableLink } from '../../link/durableLink.js';
import { answeredPages, encodeFault } from '../../link/faults.js';
import { frameType } from '../../link/frames.js';
import type { PageRun } from '../postcopy/blockPages.js';
import type { Guest } from './guest.js';

export class Faults {
  /** The source may still bring so many pages of bytes. */
  #askedPages = 0;

  /** The guest waits for these pages. */
  raise(run: PageRun, { disks }: Guest, link: Pick<DurableLink, 'sendUrgent'>): void {
    const here = disks.hurry(run);
    if (here === run.count) return;
    this.#askedPages += answeredPages(run).count;
    link.sendUrgent(frameType.fault, encodeFault(run));
  }

  /** @throws RelayError VMMIG_LINK_PROTOCOL when nobody asked for so much */
  answered(payload: Buffer, { pagesOfBlock }: Guest): Batch {
    const batch = decodeBatch(payload, pagesOfBlock);
    this.#askedPages -= batch.pages.length / pageBytes;
    if (this.#askedPages < 0)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay answered what nobody asked');
    return batch;
  }
}
