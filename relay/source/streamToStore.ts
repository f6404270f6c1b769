/**
 * Takes QEMU's migration stream into the page store, at memory speed: nothing here waits for the link. What is not RAM
 * is kept as well: what the stream begins with, and the device state that it ends with.
 */
import { heldDisk, isZero } from '../../pager/index.js';
import type { RamBlock, Section, StreamConfiguration, StreamHandler, TailReason } from '../../stream/handler.js';
import type { RelayCounters } from '../counters.js';
import { pageBytes, type RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import { maxReferencePages } from '../link/batch.js';
import type { PageStore } from '../store/pageStore.js';
import type { PageRange } from './memoryStretch.js';
import { RunCollector } from './runCollector.js';
import type { SentAhead } from './sentAhead.js';
import { type CacheMap, TeleportMap } from './teleportMap.js';

/** As much as a destination takes. */
const maxTailBytes = 256 * 1024 * 1024;
/** A guest touches no more at once. */
const maxWritten = 4096;

/** Where pages go. */
export type PageSink = Pick<PageStore, 'putPage' | 'putFill' | 'putReference'>;

export interface CaptureStart {
  /** Header and configuration. */
  readonly head: Buffer;
  readonly section: Section;
  readonly blocks: readonly RamBlock[];
}

export interface CaptureSink {
  /** Called once, before any page. @returns where the pages go */
  began(start: CaptureStart): PageSink;
  /** The guest has stopped: its RAM is complete. */
  ramEnded(): void;
}

export class StreamToStore implements StreamHandler {
  readonly #sink: CaptureSink;
  readonly #counters: RelayCounters;
  readonly #digester: RunDigester;
  readonly #run = new RunCollector(Buffer.allocUnsafeSlow(maxReferencePages * pageBytes), () => this.flush());
  readonly #head: Buffer[] = [];
  readonly #tail: Buffer[] = [];
  #tailBytes = 0;
  #pages: PageSink | null = null;
  #blocks: readonly RamBlock[] = [];
  #cacheMap: CacheMap | null = null;
  #map: TeleportMap | null = null;
  /** What the destination holds; null when that is nothing. */
  #ahead: SentAhead | null = null;
  /** Of each block: the pages before it. */
  #pagesBefore: readonly number[] = [];
  /** What came after the first pass, of late. */
  #written: PageRange[] = [];
  /** The last page that came. */
  #block = 0;
  #page = -1;

  constructor(sink: CaptureSink, counters: RelayCounters, digester: RunDigester) {
    this.#sink = sink;
    this.#counters = counters;
    this.#digester = digester;
  }

  /** Takes effect with the next page. */
  setCacheMap(map: CacheMap): void {
    this.flush();
    this.#cacheMap = map;
    if (this.#blocks.length > 0) this.#map = new TeleportMap(this.#blocks, map);
  }

  /** What this sends, and is the same still when QEMU's stream has it, need not be sent again. Before that. */
  useAhead(ahead: SentAhead): void {
    this.#ahead = ahead;
  }

  /** What is known of the page cache; null before there is a map, or the blocks are known. */
  get map(): TeleportMap | null {
    return this.#map;
  }

  /** What QEMU has sent again last, the last one last; without what is all of one byte. */
  get written(): readonly PageRange[] {
    return this.#written.slice(-maxWritten);
  }

  /** Pages that are still to come of the pass that QEMU is in: it goes through the blocks in their order. */
  get leftOfPass(): number {
    return this.#counters.totalPages - (this.#pagesBefore[this.#block] ?? 0) - this.#page - 1;
  }

  /** Everything after RAM: device state, end of file, the description. */
  get deviceTail(): Buffer {
    return Buffer.concat(this.#tail);
  }

  header(version: number): void {
    const header = Buffer.from('QEVM\0\0\0\0', 'latin1');
    header.writeUInt32BE(version, 4);
    this.#head.push(header);
  }

  configuration(raw: Buffer, _decoded: StreamConfiguration): void {
    this.#head.push(raw);
  }

  ramBlocks(blocks: readonly RamBlock[]): void {
    this.#blocks = blocks;
    this.#counters.totalPages = totalPagesOf(blocks);
    let before = 0;
    this.#pagesBefore = blocks.map(({ lengthBytes }) => {
      before += Math.ceil(lengthBytes / pageBytes);
      return before - Math.ceil(lengthBytes / pageBytes);
    });
    if (this.#cacheMap !== null) this.#map = new TeleportMap(blocks, this.#cacheMap);
    if (this.#ahead?.isOf(blocks) === false) this.#ahead = null;
  }

  page(block: RamBlock, pageIndex: number, source: Buffer, start: number): void {
    const pages = this.#begun();
    this.#block = block.index;
    this.#page = pageIndex;
    this.#ahead?.passed(block.index, pageIndex);
    this.#counters.pages.seen++;
    if (this.#counters.pages.seen > this.#counters.totalPages) this.#noteWritten(block.index, pageIndex);
    const place = [this.#map, this.#ahead].find((one) => one?.find(block.index, pageIndex));
    if (place) return this.#run.collect(block.index, pageIndex, place, source, start);
    this.flush();
    pages.putPage(block.index, pageIndex, source, start);
  }

  zeroPage(block: RamBlock, pageIndex: number, fill: number): void {
    const pages = this.#begun();
    this.#block = block.index;
    this.#page = pageIndex;
    this.#ahead?.passed(block.index, pageIndex);
    this.#counters.pages.seen++;
    this.#counters.pages.zero++;
    const ahead = this.#ahead;
    if (ahead?.find(block.index, pageIndex) && this.#run.collectFill(block.index, pageIndex, ahead, fill)) return;
    this.flush();
    pages.putFill(block.index, pageIndex, 1, fill);
  }

  #putChanged(block: number, page: number, bytes: Buffer, start: number): void {
    if (isZero(bytes, start)) this.#pages!.putFill(block, page, 1, 0);
    else this.#pages!.putPage(block, page, bytes, start);
  }

  #noteWritten(block: number, page: number): void {
    if (this.#written.length === 2 * maxWritten) this.#written = this.#written.slice(-maxWritten);
    this.#written.push({ block, page, count: 1 });
  }

  #begun(): PageSink {
    if (this.#pages === null)
      throw new RelayError('VMMIG_RELAY_STREAM', 'pages come before the section that announces memory has ended');
    return this.#pages;
  }

  sectionEnd(section: Section): void {
    if (section.type === 'start')
      this.#pages = this.#sink.began({ head: Buffer.concat(this.#head), section, blocks: this.#blocks });
    this.flush();
    if (section.type === 'end') this.#sink.ramEnded();
  }

  tailStart(reason: TailReason, sectionName: string): void {
    // Nobody but QEMU knows where in it the device state begins.
    if (reason === 'opaque-section')
      throw new RelayError(
        'VMMIG_RELAY_STREAM',
        `the guest's "${sectionName}" is migrated in a way that rules out post-copy`,
      );
  }

  tail(bytes: Buffer): void {
    this.#tailBytes += bytes.length;
    // Where a section's name is damaged, the rest of the guest's memory would count as device state.
    if (this.#tailBytes > maxTailBytes)
      throw new RelayError('VMMIG_RELAY_STREAM', `the device state has more than ${maxTailBytes} bytes`);
    this.#tail.push(Buffer.from(bytes));
  }

  /** Puts the run that is being collected into the store. */
  flush(): void {
    const { block, page, count, disk, diskOffsetBytes, bytes } = this.#run;
    if (count === 0) return;
    this.#run.count = 0;
    if (disk === heldDisk) return this.#putHeld(block, page, count, bytes);
    this.#pages!.putReference(block, page, count, disk, diskOffsetBytes, this.#digester.digest(bytes), bytes);
    this.#counters.pages.teleported += count;
  }

  /** Pages that were sent ahead, some of which may have changed since. */
  #putHeld(block: number, page: number, count: number, bytes: Buffer): void {
    for (const { from, to, isHeld } of this.#ahead!.take(block, page, count, bytes)) {
      const part = bytes.subarray(from * pageBytes, to * pageBytes);
      if (isHeld)
        this.#pages!.putReference(block, page + from, to - from, heldDisk, 0, this.#digester.digest(part), part);
      else for (let at = from; at < to; at++) this.#putChanged(block, page + at, bytes, at * pageBytes);
    }
  }
}
