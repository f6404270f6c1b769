/**
 * The MEM_SIZE record, which announces the RAM blocks.
 *
 *     be64 total | 0x04
 *     ( u8 length  name  be64 used length  [be64 host page size]  [be64 guest physical address] )*   until total is used up
 *
 * The address is there with x-ignore-shared. The page size is there with post-copy, and then only for blocks whose host
 * page is not the target's: nothing in the stream says which. What can follow in its place never looks like one, though:
 * the next block's name begins with a length that is not 0, and the RAM record after the list has flags in its low bits.
 */
import { PAGE_BYTES } from './constants.js';
import type { RamBlock } from './handler.js';
import type { StreamLimits } from './limits.js';
import type { StreamPosition } from './position.js';

export interface RamBlockListOptions {
  /** OR of all host page sizes, from POSTCOPY_ADVISE; null without post-copy. */
  readonly pageSizeSummary: number | null;
  readonly hasAddresses: boolean;
}

/** Reads the list block by block as its bytes arrive. */
export class RamBlockListParser {
  readonly blocks: RamBlock[] = [];
  readonly byName = new Map<string, RamBlock>();
  /** Where the next block begins, and in the end the record's length. */
  cursor = 8;
  readonly #position: StreamPosition;
  readonly #options: RamBlockListOptions;
  readonly #limits: StreamLimits;
  readonly #mayHavePageSizes: boolean;
  #remainingBytes: number;

  constructor(totalBytes: number, options: RamBlockListOptions, limits: StreamLimits, position: StreamPosition) {
    this.#position = position;
    this.#options = options;
    this.#limits = limits;
    this.#mayHavePageSizes = options.pageSizeSummary !== null && options.pageSizeSummary > PAGE_BYTES;
    this.#remainingBytes = totalBytes;
    if (totalBytes > limits.ramBytes) throw position.corrupt(`Guest of ${totalBytes} bytes of RAM`);
  }

  /** @returns the bytes needed to get further, or 0 when the list is complete; bytes after `cursor` are then the next record's */
  advance(bytes: Buffer): number {
    while (this.#remainingBytes > 0) {
      const need = this.#block(bytes);
      if (need > 0) return need;
    }
    return 0;
  }

  #block(bytes: Buffer): number {
    const start = this.cursor;
    if (bytes.length <= start) return start + 1;
    const nameEnd = start + 1 + bytes[start]!;
    let at = nameEnd + 8;
    const optional = (this.#mayHavePageSizes ? 8 : 0) + (this.#options.hasAddresses ? 8 : 0);
    if (bytes.length < at + optional) return at + optional;

    const name = bytes.toString('latin1', start + 1, nameEnd);
    const lengthBytes = readBe64(bytes, nameEnd);
    let pageSizeBytes: number | null = null;
    if (this.#mayHavePageSizes && looksLikePageSize(bytes, at + optional - 8)) {
      pageSizeBytes = readBe64(bytes, at);
      at += 8;
      if (!this.#isHostPageSize(pageSizeBytes)) throw this.#position.corrupt(`Host page size ${pageSizeBytes}`);
    }
    let gpa: number | null = null;
    if (this.#options.hasAddresses) {
      gpa = readBe64(bytes, at);
      at += 8;
    }
    this.#add({ name, index: this.blocks.length, lengthBytes, pageSizeBytes, gpa });
    this.cursor = at;
    return 0;
  }

  #add(block: RamBlock): void {
    const quoted = JSON.stringify(block.name);
    if (block.name === '') throw this.#position.corrupt('RAM block without a name');
    if (block.lengthBytes % PAGE_BYTES !== 0 || block.lengthBytes > this.#remainingBytes) {
      throw this.#position.corrupt(`RAM block ${quoted} of ${block.lengthBytes} bytes`);
    }
    if (this.byName.has(block.name)) throw this.#position.corrupt(`RAM block ${quoted} is announced twice`);
    if (this.blocks.length === this.#limits.ramBlocks) {
      throw this.#position.corrupt(`More than ${this.#limits.ramBlocks} RAM blocks`);
    }
    this.blocks.push(block);
    this.byName.set(block.name, block);
    this.#remainingBytes -= block.lengthBytes;
  }

  #isHostPageSize(size: number): boolean {
    const isPowerOfTwo = Number.isInteger(Math.log2(size));
    return isPowerOfTwo && Math.floor(this.#options.pageSizeSummary! / size) % 2 === 1;
  }
}

/** As a number: exact up to 2^53, which is above every length and address that passes the checks here. */
export function readBe64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

function looksLikePageSize(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0 && bytes.readUInt16BE(at + 6) % PAGE_BYTES === 0;
}
