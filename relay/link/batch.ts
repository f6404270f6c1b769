/**
 * A batch: runs of guest pages in the order in which QEMU sent them, the unit that is sequenced,
 * acknowledged and compressed.
 *
 *   batch   = u8 encoding (0 plain, 1 zstd), be16 record count, be32 length of the pages' bytes, record*, pages
 *   record  = u8 kind, u8 fill, be16 block, be32 first page, be16 page count, [reference]
 *   reference (kind 2) = be16 disk, be48 disk offset in bytes, 16 bytes digest of the run
 *
 *   kind 0 fill: every byte of the pages is `fill`   1 bytes: the pages follow, in record order   2 reference
 */

import { digestBytes, pageBytes } from '../digest.js';
import { RelayError } from '../errors.js';
import { compressOnce, decompressInto } from '../zstd.js';

export const recordKind = { fill: 0, bytes: 1, reference: 2 } as const;

export interface BatchRecord {
  readonly kind: number;
  readonly fill: number;
  readonly block: number;
  readonly page: number;
  readonly count: number;
  /** References only. */
  readonly disk: number;
  readonly diskOffsetBytes: number;
  readonly digest: Buffer | null;
}

const headerBytes = 7;
const recordBytes = 10;
const referenceBytes = 8 + digestBytes;
const maxRecords = 4096;
/** Pages carried as bytes; larger batches compress no better and hold up what comes after them. */
export const maxBatchPages = 128;
/** A reference that does not match costs its whole run again, so runs stay short. */
export const maxReferencePages = 64;
const maxBatchReferencePages = 1024;
const maxFillPages = 0xffff;
/** Fills other than zeroes become bytes at the destination of a switch. QEMU tells hardly any. */
const maxOddFillPages = 1024;
/** 4 GiB of memory: a batch is handled in one go, and may not keep the destination busy for long. */
const maxDecodedPages = 2 ** 20;

/** Collects pages until the batch is full. No allocation per page: buffers are reused from batch to batch. */
export class BatchBuilder {
  readonly #records = Buffer.allocUnsafe(maxRecords * (recordBytes + referenceBytes));
  readonly #pages = Buffer.allocUnsafe(maxBatchPages * pageBytes);
  #recordsBytes = 0;
  #recordCount = 0;
  #pageCount = 0;
  #referencePages = 0;
  #fillPages = 0;
  #oddFillPages = 0;
  // the last record, while it can still grow
  #kind = -1;
  #fill = 0;
  #block = 0;
  #nextPage = 0;
  #count = 0;
  #at = 0;

  get isEmpty(): boolean {
    return this.#recordCount === 0;
  }

  /** Pages that it carries as bytes. */
  get pageCount(): number {
    return this.#pageCount;
  }

  get isFull(): boolean {
    return (
      this.#recordCount >= maxRecords - 1 ||
      this.#fillPages >= maxDecodedPages / 2 ||
      this.#oddFillPages >= maxOddFillPages ||
      this.#pageCount >= maxBatchPages ||
      this.#referencePages >= maxBatchReferencePages
    );
  }

  addFill(block: number, page: number, fill: number): void {
    this.#fillPages++;
    if (fill !== 0) this.#oddFillPages++;
    if (!this.#grow(recordKind.fill, block, page, fill, maxFillPages))
      this.#open(recordKind.fill, block, page, fill, 1);
  }

  addPage(block: number, page: number, source: Buffer, start: number): void {
    if (!this.#grow(recordKind.bytes, block, page, 0, maxBatchPages)) this.#open(recordKind.bytes, block, page, 0, 1);
    source.copy(this.#pages, this.#pageCount * pageBytes, start, start + pageBytes);
    this.#pageCount++;
  }

  /** @returns the record's index in the batch, by which it is asked for again. */
  addReference(
    block: number,
    page: number,
    count: number,
    disk: number,
    diskOffsetBytes: number,
    digest: Buffer,
  ): number {
    this.#open(recordKind.reference, block, page, 0, count);
    this.#records.writeUInt16BE(disk, this.#recordsBytes);
    this.#records.writeUIntBE(diskOffsetBytes, this.#recordsBytes + 2, 6);
    digest.copy(this.#records, this.#recordsBytes + 8, 0, digestBytes);
    this.#recordsBytes += referenceBytes;
    this.#referencePages += count;
    return this.#recordCount - 1;
  }

  /** The records so far, and the pages that those with bytes carry, one after the other. */
  contents(): Batch {
    const records = readRecords(this.#records.subarray(0, this.#recordsBytes), this.#recordCount);
    return { records, pages: this.#pages.subarray(0, this.#pageCount * pageBytes) };
  }

  /** The finished batch as a payload; the builder is empty again. */
  take(compressPages: boolean): Buffer {
    const raw = this.#pages.subarray(0, this.#pageCount * pageBytes);
    const packed = compressPages && raw.length > 0 ? compressOnce(raw) : raw;
    const isPacked = packed.length < raw.length - raw.length / 32;
    const pages = isPacked ? packed : raw;
    const payload = Buffer.allocUnsafe(headerBytes + this.#recordsBytes + pages.length);
    payload[0] = isPacked ? 1 : 0;
    payload.writeUInt16BE(this.#recordCount, 1);
    payload.writeUInt32BE(raw.length, 3);
    this.#records.copy(payload, headerBytes, 0, this.#recordsBytes);
    payload.set(pages, headerBytes + this.#recordsBytes);
    this.#recordsBytes = this.#recordCount = this.#pageCount = 0;
    this.#referencePages = this.#fillPages = this.#oddFillPages = 0;
    this.#kind = -1;
    return payload;
  }

  #grow(kind: number, block: number, page: number, fill: number, limit: number): boolean {
    if (this.#kind !== kind || this.#block !== block || this.#nextPage !== page || this.#fill !== fill) return false;
    if (this.#count >= limit) return false;
    this.#count++;
    this.#nextPage++;
    this.#records.writeUInt16BE(this.#count, this.#at + 8);
    return true;
  }

  #open(kind: number, block: number, page: number, fill: number, count: number): void {
    const at = this.#recordsBytes;
    this.#records[at] = kind;
    this.#records[at + 1] = fill;
    this.#records.writeUInt16BE(block, at + 2);
    this.#records.writeUInt32BE(page, at + 4);
    this.#records.writeUInt16BE(count, at + 8);
    this.#recordsBytes = at + recordBytes;
    this.#recordCount++;
    this.#kind = kind;
    this.#fill = fill;
    this.#block = block;
    this.#nextPage = page + count;
    this.#count = count;
    this.#at = at;
  }
}

export interface Batch {
  readonly records: readonly BatchRecord[];
  /** The pages of all `bytes` records, one after the other. */
  readonly pages: Buffer;
}

/** Where the pages of a batch are unpacked, one batch after the other. */
const unpacked = Buffer.allocUnsafeSlow(maxBatchPages * pageBytes);

/**
 * Decodes a batch and checks it against the guest's memory: every run lies inside its block. Its pages are valid until
 * the next one is decoded.
 *
 * @param pagesOfBlock - number of pages of each RAM block
 */
export function decodeBatch(payload: Buffer, pagesOfBlock: readonly number[]): Batch {
  if (payload.length < headerBytes) throw malformed('a batch without a header');
  const encoding = payload[0]!;
  const recordCount = payload.readUInt16BE(1);
  const rawBytes = payload.readUInt32BE(3);
  if (rawBytes > maxBatchPages * pageBytes) throw malformed(`a batch of ${rawBytes} bytes of pages`);
  if (recordCount > maxRecords) throw malformed(`a batch of ${recordCount} records`);
  const records = readRecords(payload.subarray(headerBytes), recordCount);
  let recordsBytes = 0;
  let carriedPages = 0;
  let oddFillPages = 0;
  let pages = 0;
  for (const { kind, fill, block, page, count } of records) {
    const limit = pagesOfBlock[block];
    if (limit === undefined) throw malformed(`a run in block ${block}, which the guest does not have`);
    if (count === 0 || page + count > limit) throw malformed(`a run of ${count} pages at ${page} of ${limit}`);
    if (kind === recordKind.reference && count > maxReferencePages) throw malformed(`a reference to ${count} pages`);
    if (kind === recordKind.bytes) carriedPages += count;
    if (kind === recordKind.fill && fill !== 0) oddFillPages += count;
    if (oddFillPages > maxOddFillPages) throw malformed('a batch of fills that are not zero');
    pages += count;
    if (pages > maxDecodedPages) throw malformed(`a batch of more than ${maxDecodedPages} pages`);
    recordsBytes += recordBytes + (kind === recordKind.reference ? referenceBytes : 0);
  }
  if (carriedPages * pageBytes !== rawBytes) throw malformed('a batch whose records and pages disagree');
  return { records, pages: unpackPages(encoding, payload.subarray(headerBytes + recordsBytes), rawBytes, unpacked) };
}

function readRecords(bytes: Buffer, count: number): BatchRecord[] {
  const records: BatchRecord[] = [];
  for (let at = 0; records.length < count; ) {
    if (at + recordBytes > bytes.length) throw malformed('a batch that ends inside a record');
    const kind = bytes[at]!;
    const record = {
      kind,
      fill: bytes[at + 1]!,
      block: bytes.readUInt16BE(at + 2),
      page: bytes.readUInt32BE(at + 4),
      count: bytes.readUInt16BE(at + 8),
    };
    at += recordBytes;
    if (kind === recordKind.reference) {
      if (at + referenceBytes > bytes.length) throw malformed('a batch that ends inside a reference');
      const digest = bytes.subarray(at + 8, at + referenceBytes);
      records.push({ ...record, disk: bytes.readUInt16BE(at), diskOffsetBytes: bytes.readUIntBE(at + 2, 6), digest });
      at += referenceBytes;
    } else if (kind === recordKind.fill || kind === recordKind.bytes) {
      records.push({ ...record, disk: 0, diskOffsetBytes: 0, digest: null });
    } else throw malformed(`a record of kind ${kind}`);
  }
  return records;
}

/** Pages as they travel outside a batch: u8 encoding, then the bytes. */
export function packPages(raw: Buffer): Buffer {
  const packed = compressOnce(raw);
  const isPacked = packed.length < raw.length;
  return Buffer.concat([Buffer.of(isPacked ? 1 : 0), isPacked ? packed : raw]);
}

/** @param into - at least `rawBytes` long, where the result may lie */
export function unpackPages(encoding: number, bytes: Buffer, rawBytes: number, into?: Buffer): Buffer {
  if (encoding > 1) throw malformed(`pages in encoding ${encoding}`);
  if (encoding === 0) {
    if (bytes.length !== rawBytes) throw malformed('a batch whose pages are incomplete');
    return bytes;
  }
  // The frame's own header says how much it becomes: checked before anything is allocated for it.
  const announced = zstdContentBytes(bytes);
  if (announced !== rawBytes)
    throw malformed(`compressed pages that announce ${announced} bytes instead of ${rawBytes}`);
  let raw: Buffer;
  try {
    raw = into === undefined ? Buffer.allocUnsafe(rawBytes) : into.subarray(0, rawBytes);
    if (decompressInto(raw, bytes) !== rawBytes) throw malformed('compressed pages of another length than announced');
  } catch (cause) {
    if (cause instanceof RelayError) throw cause;
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent pages that do not decompress', cause);
  }
  return raw;
}

/** The content size in a zstd frame header (RFC 8878, 3.1.1.1), or -1 when it has none or is none. */
function zstdContentBytes(frame: Buffer): number {
  if (frame.length < 6 || frame.readUInt32LE(0) !== 0xfd2fb528) return -1;
  const descriptor = frame[4]!;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  const size = descriptor >> 6;
  if (frame.length < at + 8) return -1;
  if (size === 0) return isSingleSegment ? frame[at]! : -1;
  if (size === 1) return frame.readUInt16LE(at) + 256;
  return size === 2 ? frame.readUInt32LE(at) : Number(frame.readBigUInt64LE(at));
}

function malformed(what: string): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', `the other relay sent ${what}`);
}
