/**
 * Pages after the switch: each is given to QEMU once at most, and those that QEMU asks for before all others. The pages
 * of a huge host page are given together.
 */
import { pageBytes } from '../../digest.js';
import type { BlockPages, PageRun } from './blockPages.js';
import { type FaultAnswer, Faults, pageKey } from './faults.js';
import { type HeldHostPage, HostPageCollector } from './hostPageCollector.js';
import type { Outbox, Piece } from './outbox.js';
import { SectionWriter } from './sectionWriter.js';

/** A piece that is being written is not interrupted: as short as can be without costing throughput. */
const sectionBytes = 64 * 1024;
/** A single small page; a huge one makes its own room. */
const hostPageSectionBytes = 8 * 1024;

export interface PagesAfterOptions {
  readonly sectionId: number;
  /** For pages of huge host pages that are not complete. */
  readonly collectorBytes: number;
  /** QEMU cannot go on without this host page, and it is not here. */
  readonly fault: (run: PageRun) => void;
}

export class PagesAfter {
  readonly #outbox: Outbox;
  readonly #writer: SectionWriter;
  /** For sections of one host page each. */
  readonly #hostPageWriter: SectionWriter;
  readonly #collector: HostPageCollector;
  readonly #fault: (run: PageRun) => void;
  /** What QEMU asks for while nobody can answer, by block and page. */
  #held: Map<number, [pages: BlockPages, page: number]> | null = null;
  readonly faults = new Faults();

  constructor(outbox: Outbox, { sectionId, collectorBytes, fault }: PagesAfterOptions) {
    this.#outbox = outbox;
    this.#writer = new SectionWriter(sectionId, sectionBytes);
    this.#hostPageWriter = new SectionWriter(sectionId, hostPageSectionBytes);
    this.#collector = new HostPageCollector(collectorBytes);
    this.#fault = fault;
  }

  get pendingBytes(): number {
    return this.#writer.pendingBytes;
  }

  /** Of huge host pages that are not complete. */
  get collectedBytes(): number {
    return this.#collector.heldBytes;
  }

  /** @returns how many pages are on their way to QEMU by this */
  place(pages: BlockPages, page: number, count: number, bytes: Buffer, start: number, answer: FaultAnswer): number {
    let placed = 0;
    const end = page + count;
    for (let from = pages.placed.find(false, page, end); from < end; ) {
      const to = pages.placed.find(true, from, end);
      const at = start + (from - page) * pageBytes;
      placed +=
        pages.pagesPerHostPage === 1
          ? this.#placeRun(pages, from, to - from, bytes, at, answer)
          : this.#placeInHostPages(pages, from, to - from, bytes, at, answer);
      from = pages.placed.find(false, to, end);
    }
    this.progress();
    return placed;
  }

  /** @returns how many pages are on their way to QEMU by this: those that it has asked for */
  zero(pages: BlockPages, page: number, count: number): number {
    const end = page + count;
    for (let from = pages.placed.find(false, page, end); from < end; ) {
      const to = pages.placed.find(true, from, end);
      pages.zero.set(from, to - from);
      from = pages.placed.find(false, to, end);
    }
    const size = pages.pagesPerHostPage;
    const first = page - (page % size);
    let placed = 0;
    for (const asked of this.faults.within(pages.block.index, first, end - first) ?? []) {
      if (this.#complete(pages, asked, 'zero')) placed += size;
    }
    for (let at = first; at < end && size > 1; at += size) {
      if (this.#collector.zero(pages, at, page, count) && this.#complete(pages, at, 'zero')) placed += size;
    }
    return placed;
  }

  /** QEMU asks for a host page. */
  requested(pages: BlockPages, page: number): void {
    const block = pages.block.index;
    if (this.#held !== null) {
      this.#held.set(pageKey(block, page), [pages, page]);
    } else if (pages.placed.has(page)) {
      this.#hurry(pages, page);
    } else if (this.faults.ask(block, page) && !this.#complete(pages, page, 'zero')) {
      this.#fault({ block, page, count: pages.pagesPerHostPage });
    }
  }

  /** Keeps requests until `release`. */
  hold(): void {
    this.#held = new Map();
  }

  release(): void {
    const held = this.#held;
    this.#held = null;
    for (const [pages, page] of held?.values() ?? []) this.requested(pages, page);
  }

  progress(): void {
    if (this.#writer.pendingBytes >= sectionBytes || this.#outbox.backlogBytes < sectionBytes) this.flush();
  }

  flush(): void {
    if (this.#writer.pendingBytes > 0) this.#outbox.push(this.#writer.take());
  }

  /** The page is on its way, or there already: it goes first if it still waits. */
  #hurry(pages: BlockPages, page: number): void {
    this.flush();
    const piece = this.#outbox.promote(pages.block.index, page);
    if (piece === null || !this.faults.ask(pages.block.index, page)) return;
    notice(piece, this.faults.answer(pages.block.index, page, 'local'));
  }

  /** Pages that are not placed, of a block of small host pages. */
  #placeRun(pages: BlockPages, page: number, count: number, bytes: Buffer, start: number, answer: FaultAnswer): number {
    pages.setPlaced(page, count);
    const asked = this.faults.within(pages.block.index, page, count);
    for (const each of asked ?? []) {
      this.#hostPageWriter.page(pages.block, each, bytes, start + (each - page) * pageBytes);
      this.#outbox.urgent(this.#hostPageWriter.take(this.faults.answer(pages.block.index, each, answer)));
    }
    for (let at = 0; at < count; at++) {
      if (asked?.includes(page + at)) continue;
      this.#writer.page(pages.block, page + at, bytes, start + at * pageBytes);
      if (this.#writer.pendingBytes >= sectionBytes) this.flush();
    }
    return count;
  }

  #placeInHostPages(
    pages: BlockPages,
    page: number,
    count: number,
    bytes: Buffer,
    start: number,
    answer: FaultAnswer,
  ): number {
    const size = pages.pagesPerHostPage;
    const end = page + count;
    let placed = 0;
    for (let at = page; at < end; ) {
      const hostPage = at - (at % size);
      const to = Math.min(hostPage + size, end);
      this.#collector.add(pages, hostPage, at, to - at, bytes, start + (at - page) * pageBytes);
      if (this.#complete(pages, hostPage, answer)) placed += size;
      at = to;
    }
    this.#evict();
    return placed;
  }

  /** What is forgotten is needed again, and then better in one piece. */
  #evict(): void {
    const isWaiting = ({ pages, page }: HeldHostPage) => this.faults.isWaiting(pages.block.index, page);
    for (let lost = this.#collector.evict(isWaiting); lost !== null; lost = this.#collector.evict(isWaiting)) {
      const run = { block: lost.pages.block.index, page: lost.page, count: lost.pages.pagesPerHostPage };
      // Not while the caller is giving pages: an answer at once would go round in circles.
      setImmediate(() => this.#fault(run));
    }
  }

  /** Places a host page if all of it is here, at once if QEMU has asked for it. */
  #complete(pages: BlockPages, hostPage: number, answer: FaultAnswer): boolean {
    if (!this.#collector.isComplete(pages, hostPage)) return false;
    const block = pages.block.index;
    const held = this.#collector.get(pages, hostPage);
    this.#collector.remove(pages, hostPage);
    this.#writeHostPage(pages, hostPage, held);
    pages.setPlaced(hostPage, pages.pagesPerHostPage);
    if (this.faults.isWaiting(block, hostPage))
      this.#outbox.urgent(this.#hostPageWriter.take(this.faults.answer(block, hostPage, answer)));
    else this.#outbox.push(this.#hostPageWriter.take());
    return true;
  }

  #writeHostPage(pages: BlockPages, hostPage: number, held: HeldHostPage | undefined): void {
    for (let at = 0; at < pages.pagesPerHostPage; at++) {
      if (held?.held.has(at)) this.#hostPageWriter.page(pages.block, hostPage + at, held.bytes, at * pageBytes);
      else this.#hostPageWriter.zero(pages.block, hostPage + at);
    }
  }
}

function notice(piece: Piece, call: () => void): void {
  const { taken } = piece;
  piece.taken = () => {
    taken();
    call();
  };
}
