/**
 * The encoder of QEMU's migration stream, the decoder's mirror; the grammar is in decoder.ts and ramDecoder.ts. It puts
 * together what it is told and does not check that the order makes a stream.
 *
 * Output gathers in batches: `take()` when `pendingBytes` is worth a write, and `recycle()` what was written.
 */
import { PAGE_BYTES, RamFlag, SectionType, STREAM_MAGIC, STREAM_VERSION, StreamCommand } from './constants.js';
import type { RamBlock, SectionKind } from './handler.js';
import { OutputBuffer } from './outputBuffer.js';

const PAGES_PER_4GIB = 2 ** 20;
const NO_DATA = Buffer.alloc(0);

export interface StreamEncoderOptions {
  /** Memory set aside at a time. Take batches before they reach it, and they are never copied. */
  readonly batchBytes?: number;
}

export class StreamEncoder {
  readonly #out: OutputBuffer;
  /** Name of the block that CONTINUE would refer to. */
  #namedBlock: string | null = null;

  constructor(options: StreamEncoderOptions = {}) {
    this.#out = new OutputBuffer(options.batchBytes ?? 2 ** 18);
  }

  get pendingBytes(): number {
    return this.#out.length;
  }

  /** The bytes so far; they are the caller's, and can be written to a socket as they are. */
  take(): Buffer {
    return this.#out.take();
  }

  /** Optional: gives back the memory of a batch that has been written, for the next ones. */
  recycle(taken: Buffer): void {
    this.#out.recycle(taken);
  }

  header(version: number = STREAM_VERSION): void {
    const at = this.#out.reserve(8);
    this.#out.bytes.writeUInt32BE(STREAM_MAGIC, at);
    this.#out.bytes.writeUInt32BE(version, at + 4);
  }

  /** @param raw as the decoder or `encodeConfiguration` gives it */
  configuration(raw: Buffer): void {
    this.raw(raw);
  }

  /** @param data at most 65,535 bytes; see commands.ts for what belongs in it */
  command(command: number, data: Buffer = NO_DATA): void {
    const at = this.#out.reserve(5 + data.length);
    this.#out.bytes[at] = SectionType.command;
    this.#out.bytes.writeUInt16BE(command, at + 1);
    this.#out.bytes.writeUInt16BE(data.length, at + 3);
    data.copy(this.#out.bytes, at + 5);
  }

  packaged(nested: Buffer): void {
    const lengthBytes = Buffer.alloc(4);
    lengthBytes.writeUInt32BE(nested.length);
    this.command(StreamCommand.packaged, lengthBytes);
    this.raw(nested);
  }

  sectionStart(type: 'start' | 'full', id: number, name: string, instance: number, version: number): void {
    const at = this.#sectionHead(type, id, 9 + name.length);
    this.#name(name, at);
    this.#out.bytes.writeUInt32BE(instance, at + 1 + name.length);
    this.#out.bytes.writeUInt32BE(version, at + 5 + name.length);
  }

  sectionContinue(type: 'part' | 'end', id: number): void {
    this.#sectionHead(type, id, 0);
  }

  /** The MEM_SIZE record. Page sizes and addresses go in where the blocks have them. */
  ramBlocks(blocks: readonly RamBlock[]): void {
    let totalBytes = 0;
    for (const block of blocks) totalBytes += block.lengthBytes;
    this.#recordHead(totalBytes / PAGE_BYTES, RamFlag.memSize, 0);
    for (const block of blocks) {
      this.#name(block.name, this.#out.reserve(1 + block.name.length));
      this.#be64(block.lengthBytes);
      if (block.pageSizeBytes !== null) this.#be64(block.pageSizeBytes);
      if (block.gpa !== null) this.#be64(block.gpa);
    }
  }

  /** A page's bytes, `source[start .. start + 4096)`; copied. */
  page(block: RamBlock, pageIndex: number, source: Buffer, start: number): void {
    const at = this.#pageHead(block, pageIndex, RamFlag.page, PAGE_BYTES);
    source.copy(this.#out.bytes, at, start, start + PAGE_BYTES);
  }

  /** A page of one byte repeated. */
  zeroPage(block: RamBlock, pageIndex: number, fill = 0): void {
    const at = this.#pageHead(block, pageIndex, RamFlag.zero, 1);
    this.#out.bytes[at] = fill;
  }

  /** Makes the next page record name its block even if the one before was of the same block. */
  nameNextBlock(): void {
    this.#namedBlock = null;
  }

  multifdFlush(): void {
    this.#recordHead(0, RamFlag.multifdFlush, 0);
  }

  /** Ends a RAM section's body. */
  eos(): void {
    this.#recordHead(0, RamFlag.eos, 0);
  }

  footer(id: number): void {
    const at = this.#out.reserve(5);
    this.#out.bytes[at] = SectionType.footer;
    this.#out.bytes.writeUInt32BE(id, at + 1);
  }

  tail(bytes: Buffer): void {
    this.raw(bytes);
  }

  eof(): void {
    // Making room may change the memory.
    const at = this.#out.reserve(1);
    this.#out.bytes[at] = SectionType.eof;
  }

  /** Bytes as they are: any record's `raw`. */
  raw(bytes: Buffer): void {
    const at = this.#out.reserve(bytes.length);
    bytes.copy(this.#out.bytes, at);
  }

  #sectionHead(type: SectionKind, id: number, lengthBytes: number): number {
    const at = this.#out.reserve(5 + lengthBytes);
    this.#out.bytes[at] = SectionType[type];
    this.#out.bytes.writeUInt32BE(id, at + 1);
    return at + 5;
  }

  #name(name: string, at: number): void {
    this.#out.bytes[at] = name.length;
    this.#out.bytes.write(name, at + 1, 'latin1');
  }

  #be64(value: number): void {
    const at = this.#out.reserve(8);
    this.#out.bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
    this.#out.bytes.writeUInt32BE(value % 2 ** 32, at + 4);
  }

  /** Head of a page's record, with the block's name unless it was the one named last. */
  #pageHead(block: RamBlock, pageIndex: number, flags: number, payloadBytes: number): number {
    const name = block.name;
    if (name === this.#namedBlock) return this.#recordHead(pageIndex, flags | RamFlag.continue, payloadBytes);
    this.#namedBlock = name;
    const at = this.#recordHead(pageIndex, flags, 1 + name.length + payloadBytes);
    this.#name(name, at);
    return at + 1 + name.length;
  }

  #recordHead(pageIndex: number, flags: number, restBytes: number): number {
    const at = this.#out.reserve(8 + restBytes);
    const bytes = this.#out.bytes;
    const high = (pageIndex / PAGES_PER_4GIB) | 0;
    const low = ((pageIndex % PAGES_PER_4GIB) << 12) | flags;
    bytes[at] = high >>> 24;
    bytes[at + 1] = high >>> 16;
    bytes[at + 2] = high >>> 8;
    bytes[at + 3] = high;
    bytes[at + 4] = low >>> 24;
    bytes[at + 5] = low >>> 16;
    bytes[at + 6] = low >>> 8;
    bytes[at + 7] = low;
    return at + 8;
  }
}
