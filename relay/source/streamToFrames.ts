/**
 * Turns QEMU's migration stream into frames: the decision, page by page, between nothing (zero), a
 * reference to the disk, and the bytes. What is not RAM pages is handed on byte for byte.
 */
import { heldDisk, isZero } from '../../pager/index.js';
import { StreamEncoder } from '../../stream/encoder.js';
import type { RamBlock, Section, StreamConfiguration, StreamHandler, TailReason } from '../../stream/handler.js';
import { digestBatch } from '../batchDigest.js';
import type { BufferPool } from '../bufferPool.js';
import type { RelayCounters } from '../counters.js';
import { MemoryDigest, pageBytes, type RunDigester, totalPagesOf } from '../digest.js';
import { BatchBuilder, maxBatchPages } from '../link/batch.js';
import { frameType } from '../link/frames.js';
import { encodeHints, type RunInPlace } from '../link/hints.js';
import { maxTailPayloadBytes, packTail } from '../link/packedTail.js';
import { RunCollector } from './runCollector.js';
import type { SentAhead } from './sentAhead.js';
import { type CacheMap, TeleportMap } from './teleportMap.js';
import type { ReferredRun } from './window.js';

/** Tells the destination what the blocks are called and which section they belong to. */
export interface BlocksFrame {
  readonly sectionId: number;
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
}

export interface FrameSink {
  ordered(type: number, payload: Buffer, retained: ReadonlyMap<number, ReferredRun>): void;
  /** The source guest has stopped: its RAM is complete. */
  ramEnded(): void;
}

export interface EncodingOptions {
  /** Send page cache as references. */
  readonly elide: boolean;
  readonly compress: boolean;
}

/** What becomes of a page in QEMU's first pass: it has been there, or the page comes from the disk, or is sent. */
export type PageFate = 'passed' | 'onDisk' | 'sent';

const nothingRetained: ReadonlyMap<number, ReferredRun> = new Map();

export class StreamToFrames implements StreamHandler {
  readonly #sink: FrameSink;
  readonly #counters: RelayCounters;
  readonly #options: EncodingOptions;
  readonly #encoder = new StreamEncoder();
  readonly #batch = new BatchBuilder();
  readonly opaqueSections: string[] = [];
  #blocks: readonly RamBlock[] = [];
  #digest: MemoryDigest | null = null;
  #folding: Disposable | null = null;
  #cacheMap: CacheMap | null = null;
  #teleportMap: TeleportMap | null = null;
  /** What the destination holds; null when that is nothing. */
  #ahead: SentAhead | null = null;
  #retained = new Map<number, ReferredRun>();
  readonly #run: RunCollector;
  /** How far the first pass is: it goes through the blocks in their order. */
  #furthestBlock = 0;
  #furthestPage = -1;
  /** Of a batch, pages as bytes: what waits for more of them has not set out yet. */
  batchPages = maxBatchPages;

  /** @param pool - of buffers for `maxReferencePages` pages, to which retained runs go back when they are acknowledged */
  constructor(
    sink: FrameSink,
    counters: RelayCounters,
    options: EncodingOptions,
    private readonly digester: RunDigester,
    private readonly pool: BufferPool,
  ) {
    this.#run = new RunCollector(pool.acquire(), () => this.#closeRun());
    this.#sink = sink;
    this.#counters = counters;
    this.#options = options;
  }

  /** Takes effect with the next page. */
  setCacheMap(map: CacheMap): void {
    this.#closeRun();
    this.#cacheMap = map;
    if (this.#blocks.length > 0) this.#teleportMap = new TeleportMap(this.#blocks, map);
  }

  /** The destination has read a run ahead. */
  noteInPlace({ block, page, digest }: RunInPlace): void {
    this.#teleportMap?.noteInPlace(block, page, digest);
  }

  root(): Buffer {
    return (this.#digest ?? new MemoryDigest([])).root();
  }

  /** What has been taken from QEMU and not been sent. */
  get pendingBytes(): number {
    return this.#batch.pageCount * pageBytes;
  }

  /** @param block - its name */
  fateOf(block: string, page: number): PageFate {
    // There are few.
    const index = this.#blocks.findIndex(({ name }) => name === block);
    if (index === -1) return this.#blocks.length === 0 ? 'sent' : 'passed';
    if (index < this.#furthestBlock || (index === this.#furthestBlock && page <= this.#furthestPage)) return 'passed';
    return this.#options.elide && this.#teleportMap?.holds(index, page) ? 'onDisk' : 'sent';
  }

  header(version: number): void {
    this.#encoder.header(version);
  }

  configuration(raw: Buffer, _decoded: StreamConfiguration): void {
    this.#encoder.configuration(raw);
  }

  command(command: number, data: Buffer): void {
    this.flush();
    this.#encoder.command(command, data);
    this.#flushRaw();
  }

  packaged(nested: Buffer): void {
    this.flush();
    this.#encoder.packaged(nested);
    this.#flushRaw();
  }

  sectionStart(section: Section): void {
    if (section.type === 'start' || section.type === 'full')
      this.#encoder.sectionStart(section.type, section.id, section.name, section.instance, section.version);
  }

  ramBlocks(blocks: readonly RamBlock[], raw: Buffer): void {
    this.#blocks = blocks;
    this.#digest = new MemoryDigest(blocks);
    this.#folding = this.#digest.foldInBackground();
    this.#counters.totalPages = totalPagesOf(blocks);
    if (this.#cacheMap !== null) this.#teleportMap = new TeleportMap(blocks, this.#cacheMap);
    if (this.#ahead?.isOf(blocks) === false) this.#ahead = null;
    this.#encoder.raw(raw);
  }

  /** What this sends, and is the same still, need not be sent again. @returns false when it is of other memory */
  useAhead(ahead: SentAhead): boolean {
    if (this.#blocks.length > 0 && !ahead.isOf(this.#blocks)) return false;
    this.#ahead = ahead;
    return true;
  }

  /** What pages that come from now on are looked up in. */
  get cacheMap(): CacheMap | null {
    return this.#options.elide ? this.#cacheMap : null;
  }

  page(block: RamBlock, pageIndex: number, source: Buffer, start: number): void {
    this.#counters.pages.seen++;
    this.#advance(block.index, pageIndex);
    const map = this.#teleportMap;
    if (this.#options.elide && map?.find(block.index, pageIndex)) {
      this.#run.collect(block.index, pageIndex, map, source, start);
      return;
    }
    this.#counters.pages.sent++;
    if (this.#ahead?.find(block.index, pageIndex)) {
      this.#run.collect(block.index, pageIndex, this.#ahead, source, start);
      return;
    }
    this.#closeRun();
    this.#addPage(block.index, pageIndex, source, start);
  }

  zeroPage(block: RamBlock, pageIndex: number, fill: number): void {
    this.#counters.pages.seen++;
    this.#advance(block.index, pageIndex);
    this.#counters.pages.zero++;
    const ahead = this.#ahead;
    if (ahead?.find(block.index, pageIndex) && this.#run.collectFill(block.index, pageIndex, ahead, fill)) return;
    this.#closeRun();
    this.#addFill(block.index, pageIndex, fill);
  }

  sectionEnd(section: Section): void {
    if (section.type === 'start') {
      this.#encoder.eos();
      this.#encoder.footer(section.id);
      this.#flushRaw();
      const blocks = this.#blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes }));
      const frame: BlocksFrame = { sectionId: section.id, blocks };
      this.#sink.ordered(frameType.blocks, Buffer.from(JSON.stringify(frame)), nothingRetained);
      this.#sendHints();
    }
    this.flush();
    if (section.type === 'end') {
      this.#sink.ordered(frameType.endOfRam, Buffer.alloc(0), nothingRetained);
      this.#sink.ramEnded();
      this.close();
      // While QEMU puts the state of its devices together.
      this.#digest?.fold();
    }
  }

  /** Nothing is done beside the stream any more. */
  close(): void {
    this.#folding?.[Symbol.dispose]();
    this.#folding = null;
  }

  tailStart(reason: TailReason, sectionName: string): void {
    this.flush();
    this.#flushRaw();
    if (reason === 'opaque-section') this.opaqueSections.push(sectionName);
  }

  tail(bytes: Buffer): void {
    this.#digest ??= new MemoryDigest([]);
    this.#digest.opaque(bytes);
    for (let at = 0; at < bytes.length; at += maxTailPayloadBytes) {
      const part = bytes.subarray(at, at + maxTailPayloadBytes);
      const packed = this.#options.compress ? packTail(part) : null;
      if (packed !== null) this.#sink.ordered(frameType.packedTail, packed, nothingRetained);
      else this.#sink.ordered(frameType.tail, Buffer.from(part), nothingRetained);
    }
  }

  /** Sends what has been collected. At every section's end at the latest, so that no batch holds a page twice. */
  flush(): void {
    this.#closeRun();
    if (this.#batch.isEmpty) return;
    digestBatch(this.#digest!, this.digester, this.#batch.contents());
    const retained = this.#retained;
    this.#retained = new Map();
    this.#sink.ordered(frameType.batch, this.#batch.take(this.#options.compress), retained);
  }

  #advance(block: number, page: number): void {
    if (block < this.#furthestBlock || (block === this.#furthestBlock && page <= this.#furthestPage)) return;
    this.#furthestBlock = block;
    this.#furthestPage = page;
  }

  /** The map that there is before the first page: by the next one the destination has most of it. */
  #sendHints(): void {
    if (!this.#options.elide || this.#teleportMap === null) return;
    for (const payload of encodeHints(this.#teleportMap.runs()))
      this.#sink.ordered(frameType.hints, payload, nothingRetained);
  }

  #flushRaw(): void {
    if (this.#encoder.pendingBytes > 0) this.#sink.ordered(frameType.raw, this.#encoder.take(), nothingRetained);
  }

  #addFill(block: number, page: number, fill: number): void {
    this.#batch.addFill(block, page, fill);
    if (this.#batch.isFull) this.flush();
  }

  #addPage(block: number, page: number, source: Buffer, start: number): void {
    this.#batch.addPage(block, page, source, start);
    if (this.#batch.isFull || this.#batch.pageCount >= this.batchPages) this.flush();
  }

  #closeRun(): void {
    const { block, page, count, disk, diskOffsetBytes, bytes } = this.#run;
    if (count === 0) return;
    this.#run.count = 0;
    if (disk === heldDisk) return this.#tellHeld(block, page, count, bytes);
    const digest = this.digester.digest(bytes);
    const record = this.#batch.addReference(block, page, count, disk, diskOffsetBytes, digest);
    // What the destination has told to have, it will not ask for.
    if (!this.#teleportMap!.isInPlace(block, page, count, digest))
      this.#retained.set(record, { block, page, count, digest, bytes: this.#takeRun(bytes) });
    this.#counters.pages.teleported += count;
    if (this.#batch.isFull) this.flush();
  }

  /** Pages that were sent ahead, some of which may have changed since. */
  #tellHeld(block: number, page: number, count: number, bytes: Buffer): void {
    for (const { from, to, isHeld } of this.#ahead!.take(block, page, count, bytes)) {
      if (isHeld) this.#addHeld(block, page + from, bytes.subarray(from * pageBytes, to * pageBytes));
      else for (let at = from; at < to; at++) this.#addChanged(block, page + at, bytes, at * pageBytes);
    }
  }

  #addChanged(block: number, page: number, bytes: Buffer, start: number): void {
    if (isZero(bytes, start)) this.#addFill(block, page, 0);
    else this.#addPage(block, page, bytes, start);
  }

  #addHeld(block: number, page: number, bytes: Buffer): void {
    const count = bytes.length / pageBytes;
    const digest = this.digester.digest(bytes);
    const record = this.#batch.addReference(block, page, count, heldDisk, 0, digest);
    this.#retained.set(record, { block, page, count, digest, bytes: Buffer.from(bytes), isHeld: true });
    if (this.#batch.isFull) this.flush();
  }

  /** The run's own memory when it is mostly full, else a copy that is no larger than the run. */
  #takeRun(bytes: Buffer): Buffer {
    if (bytes.length * 2 < this.#run.memory.length) return Buffer.from(bytes);
    this.#run.memory = this.pool.acquire();
    return bytes;
  }
}
