/**
 * Puts in place what batches bring, each page's latest version: bytes and fills at once, references from what is here.
 * What a batch carries is part of what both sides compare in the end.
 */
import { heldDisk } from '../../../pager/index.js';
import { digestBatch } from '../../batchDigest.js';
import type { RelayCounters } from '../../counters.js';
import { type BlockSize, MemoryDigest, pageBytes, type RunDigester } from '../../digest.js';
import { type Batch, type BatchRecord, recordKind } from '../../link/batch.js';
import type { HostPageReceipts } from '../hostPageReceipts.js';
import type { PageRun } from '../postcopy/blockPages.js';
import type { PostcopyStream } from '../postcopy/postcopyStream.js';
import type { DiskPages } from './diskPages.js';
import type { SwitchPhases } from './phases.js';

export interface PlacementOptions {
  readonly phases: Readonly<SwitchPhases>;
  readonly digester: RunDigester;
  readonly counters: RelayCounters;
  /** The guest's. */
  readonly blocks: readonly BlockSize[];
}

export class Placement {
  readonly #stream: PostcopyStream;
  readonly #disks: DiskPages;
  readonly #receipts: HostPageReceipts;
  readonly #options: PlacementOptions;
  readonly #digest: MemoryDigest;

  constructor(stream: PostcopyStream, disks: DiskPages, receipts: HostPageReceipts, options: PlacementOptions) {
    this.#stream = stream;
    this.#disks = disks;
    this.#receipts = receipts;
    this.#options = options;
    this.#digest = new MemoryDigest(options.blocks);
  }

  /** The source is told once QEMU has all that the batch brings. */
  batch(sequence: number, batch: Batch): void {
    const { phases, digester, counters } = this.#options;
    digestBatch(this.#digest, digester, batch);
    this.#receipts.expect(sequence, batch.records);
    // What can be had at once is done at once, and a batch is done when all of its references that are known are.
    const urgent: (() => void)[] = [];
    let at = 0;
    let references = 0;
    for (const [index, run] of batch.records.entries()) {
      const { kind, block, page, count } = run;
      const isInPlace = kind === recordKind.reference && this.#disks.has(run);
      this.#disks.overtake(run);
      if (kind === recordKind.fill) this.#fill(run);
      else if (kind === recordKind.bytes) {
        this.#stream.place(block, page, count, batch.pages, at);
        counters.pages.sent += count;
        at += count * pageBytes;
        urgent.push(() => this.#hurryRest(run));
      } else if (isInPlace) counters.pages.restored += count;
      else {
        references++;
        if (!phases.hasSwitched) this.#stream.remote(block, page, count);
        this.#disks.refer(sequence, index, run);
        // While QEMU loads the guest nothing is restored. Also what was asked for in vain: it was on its way already.
        const isHeld = run.disk === heldDisk && !phases.hasSwitched;
        if (isHeld || this.#stream.isAwaited(block, page, count)) urgent.push(() => this.#disks.hurry(run));
      }
    }
    if (references === 0) this.#receipts.done(sequence);
    else this.#receipts.look();
    for (const hurry of urgent) hurry();
    this.#disks.restore();
  }

  /** Before the switch: the latest version of these pages is still to come. */
  remote(run: PageRun): void {
    this.#disks.overtake(run);
    this.#stream.remote(run.block, run.page, run.count);
  }

  /** The source has told of everything, and not of all that was read ahead. */
  dropUntold(): void {
    for (const { block, page, count } of this.#disks.endPrefetch()) this.#stream.zero(block, page, count);
  }

  /** Over the last version of all that came. */
  root(): Buffer {
    return this.#digest.root();
  }

  /** Of a huge host page that was begun, what this host's disk has: what is not complete takes memory here. */
  #hurryRest({ block, page, count }: PageRun): void {
    if (!this.#options.phases.hasSwitched || !this.#receipts.isHuge(block)) return;
    for (let at = page; at < page + count; ) {
      const hostPage = this.#receipts.hostPage(block, at);
      this.#disks.hurry({ block, ...hostPage });
      at = hostPage.page + hostPage.count;
    }
  }

  #fill({ block, page, count, fill }: BatchRecord): void {
    this.#options.counters.pages.zero += count;
    if (fill === 0) {
      this.#stream.zero(block, page, count);
      return;
    }
    const bytes = Buffer.alloc(pageBytes, fill);
    for (let at = page; at < page + count; at++) this.#stream.place(block, at, 1, bytes, 0);
  }
}
