/**
 * The page store of a guest whose RAM is a shared memory file: nothing is captured, the file is read when pages are sent.
 *
 * QEMU keeps no log of what the guest writes when it leaves shared memory out of its stream. Once the guest has stopped,
 * though, the file does not change any more, and holds the final version of every page. So
 *
 * - nothing that is sent while the guest runs counts. At the switch every page is unsent, whatever was sent before:
 *   the pause does not depend on how much memory there is.
 * - what is sent after the stop is final, and every page is sent exactly once.
 *
 * What is sent while the guest runs are hints: the bytes of pages as they were when they were read. The destination holds
 * them (HeldPages), and may not show them to the guest. After the stop the source looks at these pages again, one by
 * one, at 2 GB/s:
 *
 *   not changed   a reference with `heldDisk` for its disk: first page, count, and the digest of the final bytes, of those
 *                 that lie together
 *   changed       the pages again, before all others: the guest has just written to them
 *
 * The digest in the reference makes it right whatever the destination holds: it places what it holds if that has the
 * digest, and otherwise asks for the bytes, as with a disk that does not match. It may drop hints as it likes.
 *
 *   batches before `freeze()`, in order          batches from `freeze()` on, in any order
 *   bytes: hints, each group of 16 pages         fill, bytes: final, to be placed
 *     (aligned) at most one run; the newer       reference to a disk: final, as with any other guest
 *     replaces the older                         reference to heldDisk: final, what is held
 *
 * A destination can tell hints from final pages by when they come. What is taken with `takeNow` during the pause it may
 * place before QEMU is told to listen; all other pages of the block are remote then, and to be discarded. It does not pay to
 * confirm more during the pause: QEMU loads a page more slowly than it is asked for from what is held.
 *
 * The order after the stop: bytes that `moveToFront` names, what the guest has written since it was hinted, what is
 * favoured; then the rest by address. What was hinted, holes of the file, which are zero pages, and page cache, as
 * references, take turns with that. Page cache is never hinted: the cache map, sent ahead, lets the destination read its
 * disk early, and the reference confirms it.
 */
import { type CacheRun, CaptureBlock, type FileBlock, pageKind } from './captureBlock.js';
import { FinalPass } from './finalPass.js';
import { Flight, Flights, type SentSet } from './flights.js';
import { HintPass } from './hintPass.js';
import { groupPages, pageBytes } from './pageGroups.js';
import type { Digester, PageBatch } from './pageTeller.js';
import { WriteWatch, type WrittenPage } from './writeWatch.js';

export interface FileCaptureOptions {
  /** How much the destination will hold as hints; 0: send none. */
  readonly hintLimitBytes: number;
  /** Until `hintAll` only what is favoured is hinted: of the rest it is not known yet what is page cache. */
  readonly awaitsCache?: boolean;
}

export interface Taken {
  readonly sent: SentSet | null;
  /** Pages of the range that are under way already. */
  readonly inFlightPages: number;
}

/** Pages by the way in which they are told, as far as is known: what turns out to be zero counts as bytes. */
export interface PageCounts {
  readonly fill: number;
  readonly bytes: number;
  readonly reference: number;
}

export interface KeptRun {
  readonly block: number;
  readonly page: number;
  readonly count: number;
  readonly bytes: Buffer;
  /** It was a reference to a hint, which the destination has dropped. */
  readonly isHeld: boolean;
}

export class FileCapture {
  readonly #blocks: readonly CaptureBlock[];
  readonly #byIndex: ReadonlyMap<number, CaptureBlock>;
  readonly #hints: HintPass;
  readonly #final: FinalPass;
  readonly #flights = new Flights();
  readonly #watch: WriteWatch;
  #isFrozen = false;

  /** @param blocks those that are in files; the files stay the caller's */
  constructor(blocks: readonly FileBlock[], digester: Digester, options: FileCaptureOptions) {
    this.#blocks = blocks.map((block) => new CaptureBlock(block));
    this.#byIndex = new Map(this.#blocks.map((block) => [block.index, block]));
    this.#final = new FinalPass(this.#blocks, digester);
    this.#watch = new WriteWatch(this.#blocks, digester);
    const changed = (block: CaptureBlock, group: number) => this.#final.changed(block, group);
    const { hintLimitBytes: limitBytes, awaitsCache = false } = options;
    this.#hints = new HintPass(this.#blocks, changed, { limitBytes, awaitsCache });
  }

  /** Whether a block is kept in a file; others come through QEMU's stream. */
  has(block: number): boolean {
    return this.#byIndex.has(block);
  }

  /** Finds the holes of the files, while the guest runs: 7 ms for each GiB of data, on another thread. Worth it, not needed. */
  async survey(signal?: AbortSignal): Promise<void> {
    for (const block of this.#blocks) await block.survey(signal);
  }

  /** Replaces what is known of the page cache. Runs as in the cache map, cut as references are; those of other blocks are ignored. */
  setCache(runs: readonly CacheRun[]): void {
    for (const block of this.#blocks) block.setCache(runs.filter((run) => run.block === block.index));
    this.#final.cacheChanged();
  }

  /** Hints have been sent of all there is. `hintAgain` looks for what has changed since. */
  get isHinted(): boolean {
    return this.#hints.isOver;
  }

  /** Nothing more can be hinted before `hintAll`. */
  get awaitsAll(): boolean {
    return this.#hints.isWaiting;
  }

  hintAgain(): void {
    this.#hints.restart();
  }

  /** These are hinted first, in this order, and told before other bytes after `freeze`. In place of those before. */
  favour(ranges: readonly { readonly block: number; readonly page: number; readonly count: number }[]): void {
    const favoured = ranges.map(({ block, page, count }) => {
      const { found, from, end } = this.#clip(block, page, count);
      return { block: found, page: from, end };
    });
    this.#hints.favour(favoured);
    this.#final.favoured.set(favoured);
    this.#watch.favour(favoured);
  }

  /** Of those, pages that have not been looked at yet. */
  get favouredPages(): number {
    return this.#hints.favouredGroups * groupPages;
  }

  /** The page cache is known, as far as it will be. */
  hintAll(): void {
    this.#hints.open();
  }

  /** Only what is favoured is hinted from now on. */
  hintFavoured(): void {
    this.#hints.close();
  }

  /** Looks for what the guest keeps writing to, for so long at most. @returns whether there is more to look at */
  watch(timeMs: number): boolean {
    return this.#watch.look(timeMs);
  }

  /** What it was seen to write to, what was found last first. */
  get written(): WrittenPage[] {
    return this.#watch.written;
  }

  /**
   * The guest has stopped: from now on the files are its memory, and everything is unsent. Should it run again after all,
   * this capture is of no use any more.
   */
  freeze(): void {
    this.#isFrozen = true;
  }

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  /**
   * Puts the next pages in a batch: before `freeze` hints, then final versions; either what costs the link nothing, or
   * bytes. A call takes some 5 ms at most.
   *
   * @param builder empty
   * @param limitPages before `freeze` at least 16 and at most what a batch carries
   * @param onlyWanted after `freeze`: only what is favoured, or was moved to the front
   * @returns null when there is nothing to send; before `freeze` also when there was nothing among the pages looked at
   */
  fillBatch(builder: PageBatch, limitPages: number, onlyWanted = false): SentSet | null {
    const flight = new Flight();
    if (!this.#isFrozen) flight.bytesPages = this.#hints.fill(builder, limitPages);
    else this.#final.fill(builder, limitPages, flight, onlyWanted);
    return this.#flights.launch(flight);
  }

  /**
   * A fault, or what will surely be one, after `freeze`: the unsent pages of a range at once, checked first where they were hinted. Stops when the
   * builder is full: a huge page takes several calls.
   */
  takeNow(block: number, page: number, count: number, builder: PageBatch): Taken {
    const { found, from, end } = this.#clip(block, page, count);
    const flight = new Flight();
    let inFlightPages = 0;
    for (let at = from; at < end; at++) if (found.sent[at] === 1 && !found.isPlaced(at)) inFlightPages++;
    this.#final.take(found, from, end, builder, flight);
    return { sent: this.#flights.launch(flight), inFlightPages };
  }

  /** These go before any other bytes, and before those that were moved earlier. */
  moveToFront(block: number, page: number, count: number): void {
    const { found, from, end } = this.#clip(block, page, count);
    this.#final.front.push({ block: found, page: from, end });
  }

  /** All of a batch is in place at the destination; of a batch of hints: held, or dropped. In any order. */
  acknowledged(token: number): boolean {
    return this.#flights.acknowledge(token);
  }

  /** The bytes of a reference under way that the destination does not have. Once for each record. */
  bytesOf(token: number, record: number): KeptRun | null {
    const run = this.#flights.takeReference(token, record);
    if (run === null) return null;
    const { block, page, count, isHeld = false } = run;
    const bytes = Buffer.allocUnsafe(count * pageBytes);
    block.read(page, count, bytes);
    return { block: block.index, page, count, bytes, isHeld };
  }

  /** Starts again with another relay at the destination, after the switch: what QEMU there does not have is unsent. */
  resync(placed: (block: number, page: number) => boolean): void {
    this.#flights.clear();
    for (const block of this.#blocks) block.reset((page) => placed(block.index, page));
    this.#final.restart();
  }

  /** The pages of a block that have not been sent: first page and count of each run, ascending. */
  remoteSet(block: number): Uint32Array {
    const { sent, pages } = this.#byIndex.get(block)!;
    const runs: number[] = [];
    for (let page = sent.indexOf(0); page >= 0; ) {
      const found = sent.indexOf(1, page);
      const end = found < 0 ? pages : found;
      runs.push(page, end - page);
      page = end < pages ? sent.indexOf(0, end) : -1;
    }
    return Uint32Array.from(runs);
  }

  /** Pages not sent yet. */
  get unsent(): PageCounts {
    return this.#count(({ unsent }, kind) => unsent[kind]!);
  }

  /** Pages not acknowledged yet, sent or not. */
  get remaining(): PageCounts {
    return this.#count(({ unsent, underway }, kind) => unsent[kind]! + underway[kind]!);
  }

  /** The destination has everything in place. */
  get isEmpty(): boolean {
    const { fill, bytes, reference } = this.remaining;
    return fill + bytes + reference === 0;
  }

  /** Of the destination's memory. */
  get hintedBytes(): number {
    return this.#blocks.reduce((sum, { hints }) => sum + hints.pages, 0) * pageBytes;
  }

  #count(pagesOf: (block: CaptureBlock, kind: number) => number): PageCounts {
    const sum = (kind: number) => this.#blocks.reduce((total, block) => total + pagesOf(block, kind), 0);
    return { fill: sum(pageKind.fill), bytes: sum(pageKind.bytes), reference: sum(pageKind.reference) };
  }

  #clip(block: number, page: number, count: number): { found: CaptureBlock; from: number; end: number } {
    const found = this.#byIndex.get(block)!;
    return { found, from: Math.max(0, page), end: Math.min(found.pages, page + count) };
  }
}
