/** Goes through the memory of a guest that has stopped, and puts every page in a batch, once. */
import { type CaptureBlock, pageKind } from './captureBlock.js';
import type { Flight } from './flights.js';
import { groupPages } from './pageGroups.js';
import { type Digester, type PageBatch, PageTeller } from './pageTeller.js';
import { RangeQueue } from './rangeQueue.js';
import { type PageRange, RangeStack } from './rangeStack.js';

/** Fills cost the link nothing, but time: a batch of these takes less than a millisecond. */
const maxFillPages = 16_384;
/** Zero pages, too: these are 16 MiB, and take some 3 ms. */
const maxPagesRead = 4096;
/** Where one page has come into a hole there are more: they are read instead of asked for one by one. */
const filledPages = 256;
const maxFrontRanges = 1024;
/** What costs the link nothing costs time all the same: it goes in between what is wanted. */
const wantedTurns = 8;

export class FinalPass {
  /** What is wanted before all other bytes. */
  readonly front = new RangeStack(maxFrontRanges);
  /** What the guest will need early: before the rest, after what it has just written to. */
  readonly favoured = new RangeQueue();
  readonly #changed: RangeStack;
  readonly #teller: PageTeller;
  // how far each pass has come
  #hintAt = { block: 0, group: 0 };
  #holeAt = { block: 0, index: 0, page: 0 };
  #cacheAt = { block: 0, index: 0 };
  #bytesAt = { block: 0, page: 0 };
  #turn = 0;

  constructor(
    private readonly blocks: readonly CaptureBlock[],
    digester: Digester,
  ) {
    this.#changed = new RangeStack(blocks.reduce((sum, { hints }) => sum + hints.groups, 0));
    this.#teller = new PageTeller(digester, (block, group) => this.changed(block, group));
  }

  /** The guest has written to a group: it goes before the rest, as it will probably be written to again. */
  changed(block: CaptureBlock, group: number): void {
    const page = group * groupPages;
    this.#changed.push({ block, page, end: Math.min(block.pages, page + groupPages) });
  }

  cacheChanged(): void {
    this.#cacheAt = { block: 0, index: 0 };
  }

  restart(): void {
    this.front.clear();
    this.#changed.clear();
    this.favoured.restart();
    this.cacheChanged();
    this.#hintAt = { block: 0, group: 0 };
    this.#holeAt = { block: 0, index: 0, page: 0 };
    this.#bytesAt = { block: 0, page: 0 };
  }

  /** The next pages; nothing when all are sent. @param onlyWanted leaves the rest for later */
  fill(builder: PageBatch, limitPages: number, flight: Flight, onlyWanted = false): void {
    const turn = this.#turn++;
    if (onlyWanted || turn % wantedTurns !== 0) this.#tellWanted(builder, limitPages, flight);
    if (onlyWanted || flight.pages > 0) return;
    // Nothing is wanted: what costs the link something and what does not take turns.
    if (turn % 2 === 1) this.#tellBytes(builder, limitPages, flight);
    if (flight.pages === 0) this.#confirmHints(builder, limitPages, flight);
    if (flight.pages > 0) return;
    this.#tellHoles(builder, flight);
    this.#tellCache(builder, limitPages, flight);
    if (flight.pages === 0) this.#tellBytes(builder, limitPages, flight);
  }

  /** What is unsent of a range, until the batch is full. */
  take(block: CaptureBlock, from: number, end: number, builder: PageBatch, flight: Flight): void {
    for (let at = block.nextUnsent(from, end); at < end && !builder.isFull; at = block.nextUnsent(at, end))
      this.#teller.pages(block, at, Math.min(end, groupEnd(at)), builder, flight);
  }

  /** Hints that still hold, for the time it takes to read `limitPages`. */
  #confirmHints(builder: PageBatch, limitPages: number, flight: Flight): void {
    const limit = this.#teller.pagesRead + limitPages;
    const at = this.#hintAt;
    for (let block = this.blocks[at.block]; block !== undefined; block = this.blocks[++at.block]) {
      for (; block.hints.pages > 0 && at.group < block.hints.groups; at.group++) {
        if (builder.isFull || this.#teller.pagesRead >= limit) return;
        if (block.hints.countOf(at.group) > 0) this.#teller.confirm(block, at.group, builder, flight);
      }
      at.group = 0;
    }
  }

  /** What has come into a hole since the survey is left to be read. */
  #tellHoles(builder: PageBatch, flight: Flight): void {
    const at = this.#holeAt;
    for (let block = this.blocks[at.block]; block !== undefined; block = this.blocks[++at.block]) {
      for (; at.index < block.holes.length; at.index += 2) {
        const end = block.holes[at.index + 1]!;
        at.page = Math.max(at.page, block.holes[at.index]!);
        while (at.page < end) {
          const data = block.nextInFile(at.page, end);
          for (let page = block.nextUnsent(at.page, data); page < data; page = block.nextUnsent(page, data)) {
            if (builder.isFull || flight.fillPages >= maxFillPages) return;
            builder.addFill(block.index, page, 0);
            flight.add(block, page);
            flight.fillPages++;
          }
          at.page = Math.min(end, data + filledPages);
          block.setKind(data, at.page, pageKind.bytes);
        }
      }
      at.index = at.page = 0;
    }
  }

  #tellCache(builder: PageBatch, limitPages: number, flight: Flight): void {
    const at = this.#cacheAt;
    for (let block = this.blocks[at.block]; block !== undefined; block = this.blocks[++at.block]) {
      for (; at.index < block.cache.length; at.index++) {
        const run = block.cache[at.index]!;
        const end = run.page + run.count;
        for (let page = block.nextUnsent(run.page, end); page < end; page = block.nextUnsent(page + 1, end)) {
          if (builder.isFull || flight.referencePages >= limitPages) return;
          if (block.kindOf(page) === pageKind.reference) this.#teller.reference(block, page, builder, flight);
        }
      }
      at.index = 0;
    }
  }

  #tellWanted(builder: PageBatch, limitPages: number, flight: Flight): void {
    this.#tellFrom(() => this.#nextWanted(), builder, limitPages, flight);
  }

  #tellBytes(builder: PageBatch, limitPages: number, flight: Flight): void {
    this.#tellFrom(() => this.#nextWanted() ?? this.#nextByAddress(), builder, limitPages, flight);
  }

  #nextWanted(): PageRange | null {
    return this.front.next() ?? this.#changed.next() ?? this.favoured.next();
  }

  #tellFrom(find: () => PageRange | null, builder: PageBatch, limitPages: number, flight: Flight): void {
    const limit = this.#teller.pagesRead + maxPagesRead;
    while (flight.bytesPages < limitPages && this.#teller.pagesRead < limit && !builder.isFull) {
      const next = find();
      if (next === null) return;
      const { block, page, end } = next;
      this.#teller.pages(block, page, Math.min(end, groupEnd(page)), builder, flight);
    }
  }

  #nextByAddress(): PageRange | null {
    const at = this.#bytesAt;
    for (let block = this.blocks[at.block]; block !== undefined; block = this.blocks[++at.block]) {
      at.page = block.nextUnsent(at.page, block.pages);
      if (at.page < block.pages) return { block, page: at.page, end: block.pages };
      at.page = 0;
    }
    return null;
  }
}

function groupEnd(page: number): number {
  return (Math.floor(page / groupPages) + 1) * groupPages;
}
