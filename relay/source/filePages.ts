/**
 * The pages of a guest whose RAM is kept in memory files: those blocks are read from the files, and what else the guest
 * has, such as firmware, comes through QEMU's stream into an ordinary store.
 *
 *   while the guest runs     `fillAhead` gives hints from the files, for which nothing is promised
 *   from `freeze` on         the files are final: all of their pages are unsent
 *   from `follow` on         `fillBatch` gives the files' pages, or of these only what is wanted first; until then
 *                            it gives only what came through the stream
 *
 * A batch is the files' or the store's, never both; the lowest bit of its token says whose.
 */
import {
  type CacheRun,
  type Digester,
  FileCapture,
  type SentSet as FileSentSet,
  type MemoryFile,
  type WrittenPage,
} from '../../pager/index.js';
import type { RelayCounters } from '../counters.js';
import { pageBytes } from '../digest.js';
import type { BatchBuilder } from '../link/batch.js';
import type { SentSet } from '../store/flights.js';
import { type PageCounts, PageStore, type PageStoreOptions } from '../store/pageStore.js';
import type { Taken } from '../store/sender.js';
import { type GuestBlock, readableBlocks } from './guestBlock.js';
import type { GuestPages, KeptRun } from './guestPages.js';
import type { PageRange } from './memoryStretch.js';

/** Memory that QEMU leaves out of its stream. The files are the caller's, and stay open until the relay is disposed. */
export interface GuestMemory {
  /** All of the guest's, in the order of QEMU's stream. */
  readonly blocks: readonly GuestBlock<MemoryFile>[];
  /** How much is sent while the guest runs; the destination has to hold it. */
  readonly hintLimitBytes: number;
  /** A file to create for what is in no file of the guest's: another relay could then take this one's place. */
  readonly logPath?: string;
}

const fromFiles = 1;

export class FilePages implements GuestPages {
  /** Takes what comes through the stream. */
  readonly streamed: PageStore;
  readonly #files: FileCapture;
  readonly #counters: RelayCounters;
  #follows: 'nothing' | 'wanted' | 'all' = 'nothing';

  constructor(memory: GuestMemory, digester: Digester, counters: RelayCounters, options: PageStoreOptions) {
    const { blocks, hintLimitBytes } = memory;
    this.#files = new FileCapture(readableBlocks(blocks), digester, { hintLimitBytes, awaitsCache: true });
    this.streamed = new PageStore(
      blocks.map(({ name, lengthBytes, place }) => ({ name, lengthBytes: place === null ? lengthBytes : 0 })),
      options,
    );
    this.#counters = counters;
    counters.totalPages = blocks.reduce((sum, { lengthBytes }) => sum + Math.ceil(lengthBytes / pageBytes), 0);
  }

  /** Finds out what of the files is not worth a look. */
  async survey(signal: AbortSignal): Promise<void> {
    await this.#files.survey(signal);
  }

  /** @param runs cut as references are */
  setCache(runs: readonly CacheRun[]): void {
    this.#files.setCache(runs);
  }

  /** Everything has been hinted at that the destination will hold. */
  get isHinted(): boolean {
    return this.#files.isHinted;
  }

  /** Before `freeze`. @returns null also when there was nothing among the pages looked at: see `isHinted` */
  fillAhead(builder: BatchBuilder, limitPages: number): SentSet | null {
    return own(this.#files.fillBatch(builder, limitPages));
  }

  /** These first, in this order; of the files nothing else until `hintAll`. In place of those before, of the files. */
  favour(ranges: readonly PageRange[]): void {
    this.#files.favour(ranges.filter(({ block }) => this.#files.has(block)));
    this.streamed.favour(ranges.filter(({ block }) => !this.#files.has(block)));
  }

  get awaitsAll(): boolean {
    return this.#files.awaitsAll;
  }

  hintAll(): void {
    this.#files.hintAll();
  }

  hintFavoured(): void {
    this.#files.hintFavoured();
  }

  /** Looks for what the guest keeps writing to. @returns whether there is more to look at */
  watch(timeMs: number): boolean {
    return this.#files.watch(timeMs);
  }

  /** What it was seen to write to, what was found last first. */
  get written(): readonly WrittenPage[] {
    return this.#files.written;
  }

  /** Looks for what the guest has written to since it was hinted. */
  hintAgain(): void {
    this.#files.hintAgain();
  }

  /** The guest has stopped. */
  freeze(): void {
    this.#files.freeze();
  }

  /** All that the guest needs at once is on its way: the files' pages may follow. */
  follow(what: 'nothing' | 'wanted' | 'all'): void {
    this.#follows = what;
  }

  fillBatch(builder: BatchBuilder, limitPages: number): SentSet | null {
    const sent = this.streamed.fillBatch(builder, limitPages);
    if (sent !== null) return { ...sent, token: 2 * sent.token };
    if (this.#follows === 'nothing') return null;
    return this.#told(this.#files.fillBatch(builder, limitPages, this.#follows === 'wanted'));
  }

  takeNow(block: number, page: number, count: number, builder: BatchBuilder): Taken {
    if (this.#files.has(block)) {
      const { sent, inFlightPages } = this.#files.takeNow(block, page, count, builder);
      return { sent: this.#told(sent), inFlightPages };
    }
    const { sent, inFlightPages } = this.streamed.takeNow(block, page, count, builder);
    return { sent: sent === null ? null : { ...sent, token: 2 * sent.token }, inFlightPages };
  }

  moveToFront(block: number, page: number, count: number): void {
    const pages = this.#files.has(block) ? this.#files : this.streamed;
    pages.moveToFront(block, page, count);
  }

  prefer(order: Parameters<PageStore['prefer']>[0]): void {
    this.streamed.prefer(order);
  }

  acknowledged(token: number): boolean {
    const pages = token % 2 === fromFiles ? this.#files : this.streamed;
    return pages.acknowledged(Math.floor(token / 2));
  }

  /** Only of what came through the stream: nothing of the files is placed before the switch. */
  givenBack(token: number): boolean {
    return token % 2 !== fromFiles && this.streamed.givenBack(Math.floor(token / 2));
  }

  bytesOf(token: number, record: number): KeptRun | null {
    const pages = token % 2 === fromFiles ? this.#files : this.streamed;
    return pages.bytesOf(Math.floor(token / 2), record);
  }

  resync(placed: (block: number, page: number) => boolean): void {
    this.streamed.resync(placed);
    this.#files.resync(placed);
  }

  remoteSet(block: number): Uint32Array {
    return this.#files.has(block) ? this.#files.remoteSet(block) : this.streamed.remoteSet(block);
  }

  /** Of the files: what is to be hinted first, whatever is asked for. */
  waitingIn(ranges: readonly PageRange[]): { readonly bytes: number; readonly unknown: number } {
    const { bytes, unknown } = this.streamed.waitingIn(ranges.filter(({ block }) => !this.#files.has(block)));
    return { bytes: bytes + this.#files.favouredPages, unknown };
  }

  get unsent(): PageCounts {
    return this.#follows === 'all' ? sum(this.streamed.unsent, this.#files.unsent) : this.streamed.unsent;
  }

  get remaining(): PageCounts {
    return sum(this.streamed.remaining, this.#files.remaining);
  }

  get isEmpty(): boolean {
    return this.streamed.isEmpty && this.#files.isEmpty;
  }

  get isFull(): boolean {
    return this.streamed.isFull;
  }

  get heldBytes(): number {
    return this.streamed.heldBytes;
  }

  get spilledBytes(): number {
    return this.streamed.spilledBytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.streamed[Symbol.asyncDispose]();
  }

  /** Counts what QEMU's stream has no part in. */
  #told(sent: FileSentSet | null): SentSet | null {
    if (sent === null) return null;
    const { pages } = this.#counters;
    pages.seen += sent.fillPages + sent.bytesPages + sent.referencePages;
    pages.zero += sent.fillPages;
    pages.teleported += sent.referencePages - sent.heldPages;
    return own(sent);
  }
}

function own(sent: FileSentSet | null): SentSet | null {
  return sent === null ? null : { ...sent, token: 2 * sent.token + fromFiles };
}

function sum(left: PageCounts, right: PageCounts): PageCounts {
  return {
    fill: left.fill + right.fill,
    bytes: left.bytes + right.bytes,
    reference: left.reference + right.reference,
  };
}
