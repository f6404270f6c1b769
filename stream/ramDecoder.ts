/**
 * The body of a RAM section: the hot path.
 *
 *     be64 (page offset | flags)  [u8 length  block name, unless CONTINUE]  payload
 *
 *     0x02 ZERO           u8 fill
 *     0x08 PAGE           4096 bytes
 *     0x04 MEM_SIZE       the list of blocks, see ramBlockList.ts; no name
 *     0x10 EOS            ends the body; no name
 *     0x200 MULTIFD_FLUSH no name
 *
 * CONTINUE (0x20) refers to the block named last, in whichever section that was.
 *
 * Records that lie whole in a chunk are decoded in place. One that is cut is put together in a fixed scratch buffer. No
 * object is made per page, whichever way it comes.
 */
import { PAGE_BYTES, RamFlag } from './constants.js';
import type { RamBlock, StreamHandler } from './handler.js';
import type { StreamLimits } from './limits.js';
import type { StreamPosition } from './position.js';
import { RamBlockListParser } from './ramBlockList.js';
import { RecordBuffer } from './recordBuffer.js';

const HEADER_BYTES = 8;
const FLAG_BITS = 0xfff;
const SUPPORTED_FLAGS =
  RamFlag.zero | RamFlag.memSize | RamFlag.page | RamFlag.eos | RamFlag.continue | RamFlag.multifdFlush;
const PAGES_PER_4GIB = 2 ** 20;
const NOTHING = Buffer.alloc(0);

export class RamDecoder {
  /** Flags of the record that the handler is being told of. */
  lastFlags = 0;
  /** The body's EOS record has been seen. */
  done = true;
  /** From the configuration section and POSTCOPY_ADVISE, which come before the list of blocks. */
  hasAddresses = false;
  pageSizeSummary: number | null = null;

  readonly #handler: StreamHandler;
  readonly #limits: StreamLimits;
  readonly #position: StreamPosition;
  #blocks: Map<string, RamBlock> | null = null;
  #current: RamBlock | null = null;
  #currentName = Buffer.alloc(0);
  #list: RamBlockListParser | null = null;
  #listBytes = new RecordBuffer(HEADER_BYTES);
  readonly #scratch = Buffer.allocUnsafe(HEADER_BYTES + 256 + PAGE_BYTES);
  #scratchLength = 0;

  constructor(handler: StreamHandler, limits: StreamLimits, position: StreamPosition) {
    this.#handler = handler;
    this.#limits = limits;
    this.#position = position;
  }

  begin(): void {
    this.done = false;
  }

  /** Decodes from `chunk[start ..]`; returns where it stopped: the chunk's end, or behind EOS. */
  feed(chunk: Buffer, start: number): number {
    let at = start;
    while (at < chunk.length && !this.done) {
      if (this.#list !== null) at = this.#feedList(chunk, at);
      else if (this.#scratchLength > 0) at = this.#feedScratch(chunk, at);
      else at = this.#feedRecords(chunk, at);
    }
    return at;
  }

  /** Decodes the records that lie whole in the chunk; keeps the start of one that is cut. */
  #feedRecords(chunk: Buffer, start: number): number {
    const end = chunk.length;
    let at = start;
    do {
      this.#position.recordStart = at;
      if (recordLength(chunk, at, end) > end - at) {
        this.#scratchLength = chunk.copy(this.#scratch, 0, at, end);
        return end;
      }
      at = this.#record(chunk, at);
    } while (at < end && !this.done && this.#list === null);
    return at;
  }

  /** Completes the record that an earlier chunk began. */
  #feedScratch(chunk: Buffer, start: number): number {
    let at = start;
    for (;;) {
      const missing = recordLength(this.#scratch, 0, this.#scratchLength) - this.#scratchLength;
      if (missing <= 0) break;
      if (at === chunk.length) return at;
      const take = Math.min(missing, chunk.length - at);
      chunk.copy(this.#scratch, this.#scratchLength, at, at + take);
      this.#scratchLength += take;
      at += take;
    }
    this.#scratchLength = 0;
    this.#record(this.#scratch, 0);
    return at;
  }

  /** Decodes the whole record at `bytes[at]`; returns its end. */
  #record(bytes: Buffer, at: number): number {
    const high = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    const low = (bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!;
    const flags = low & FLAG_BITS;
    this.lastFlags = flags;
    let payload = at + HEADER_BYTES;
    if ((flags & RamFlag.continue) === 0 && (flags & (RamFlag.page | RamFlag.zero)) !== 0) {
      const nameLength = bytes[payload]!;
      this.#nameBlock(bytes, payload + 1, nameLength);
      payload += 1 + nameLength;
    }
    const pageIndex = (high >>> 0) * PAGES_PER_4GIB + (low >>> 12);
    switch (flags) {
      case RamFlag.page:
      case RamFlag.page | RamFlag.continue:
        this.#handler.page(this.#blockOf(pageIndex), pageIndex, bytes, payload);
        return payload + PAGE_BYTES;
      case RamFlag.zero:
      case RamFlag.zero | RamFlag.continue:
        this.#handler.zeroPage(this.#blockOf(pageIndex), pageIndex, bytes[payload]!);
        return payload + 1;
      case RamFlag.memSize:
        this.#beginList(bytes, at, pageIndex * PAGE_BYTES);
        return payload;
      case RamFlag.eos:
        if (pageIndex !== 0) throw this.#position.corrupt('End of a RAM section with an offset');
        this.done = true;
        return payload;
      case RamFlag.multifdFlush:
        if (pageIndex !== 0) throw this.#position.corrupt('Flush record with an offset');
        this.#handler.ramRecord?.('multifd-flush');
        return payload;
      default:
        throw this.#badFlags(flags);
    }
  }

  #nameBlock(bytes: Buffer, start: number, length: number): void {
    const known = this.#currentName;
    if (this.#current !== null && known.length === length && known.compare(bytes, start, start + length) === 0) return;
    const name = bytes.toString('latin1', start, start + length);
    const block = this.#blocks?.get(name);
    if (block === undefined) throw this.#position.corrupt(`Page of an unknown RAM block ${JSON.stringify(name)}`);
    this.#current = block;
    this.#currentName = Buffer.from(name, 'latin1');
  }

  #blockOf(pageIndex: number): RamBlock {
    const block = this.#current;
    if (block === null) throw this.#position.corrupt('Page of the same RAM block as before, but none was named before');
    if (pageIndex * PAGE_BYTES >= block.lengthBytes) {
      throw this.#position.corrupt(`Page ${pageIndex} is beyond the end of RAM block ${JSON.stringify(block.name)}`);
    }
    return block;
  }

  #badFlags(flags: number): Error {
    const text = `RAM record with flags 0x${flags.toString(16)}`;
    if ((flags & ~SUPPORTED_FLAGS) === 0) return this.#position.corrupt(text);
    let meaning = '';
    if (flags & RamFlag.xbzrle) meaning = ': XBZRLE pages; switch capability xbzrle off';
    else if (flags & RamFlag.compressedPage) meaning = ': compressed pages; switch capability compress off';
    else if (flags & RamFlag.hook) meaning = ': RDMA';
    return this.#position.unsupported(text + meaning);
  }

  #beginList(bytes: Buffer, at: number, totalBytes: number): void {
    if (this.#blocks !== null) throw this.#position.corrupt('RAM blocks are announced twice');
    const { hasAddresses, pageSizeSummary } = this;
    this.#list = new RamBlockListParser(totalBytes, { hasAddresses, pageSizeSummary }, this.#limits, this.#position);
    this.#listBytes.fill(bytes.subarray(at, at + HEADER_BYTES), 0);
    this.#advanceList(this.#list);
  }

  #feedList(chunk: Buffer, start: number): number {
    const at = this.#listBytes.fill(chunk, start);
    if (this.#listBytes.complete) this.#advanceList(this.#list!);
    return at;
  }

  #advanceList(list: RamBlockListParser): void {
    const bytes = this.#listBytes;
    bytes.need = list.advance(bytes.view());
    if (bytes.need > 0) return;
    this.#list = null;
    this.#blocks = list.byName;
    this.#handler.ramBlocks?.(list.blocks, bytes.copy(list.cursor));
    // Looking for a page size behind the last block may have taken the next record's header.
    this.#listBytes = new RecordBuffer(HEADER_BYTES);
    this.#position.recordStart += list.cursor;
    this.#scratchLength = bytes.view().copy(this.#scratch, 0, list.cursor);
    if (this.#scratchLength > 0) this.#feedScratch(NOTHING, 0);
  }
}

/** Length of the record at `bytes[at]`, as far as what there is up to `end` tells. */
function recordLength(bytes: Buffer, at: number, end: number): number {
  if (end - at < HEADER_BYTES) return HEADER_BYTES;
  const flags = ((bytes[at + 6]! << 8) | bytes[at + 7]!) & FLAG_BITS;
  if ((flags & (RamFlag.page | RamFlag.zero)) === 0) return HEADER_BYTES;
  let length = HEADER_BYTES;
  if ((flags & RamFlag.continue) === 0) {
    if (end - at === HEADER_BYTES) return HEADER_BYTES + 1;
    length += 1 + bytes[at + HEADER_BYTES]!;
  }
  return length + ((flags & RamFlag.page) !== 0 ? PAGE_BYTES : 1);
}
