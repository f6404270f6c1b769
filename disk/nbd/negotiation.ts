/** The client's part of fixed newstyle negotiation, up to where reads can be asked for. No I/O in here. */
import { DiskError } from '../errors.js';
import { ByteQueue, type Parser } from './byteQueue.js';
import {
  FLAG_FIXED_NEWSTYLE,
  FLAG_NO_ZEROES,
  INIT_MAGIC,
  info,
  MAX_STRING_BYTES,
  OLD_STYLE_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  option,
  optionReply,
  violation,
} from './protocol.js';

export interface NbdExport {
  readonly sizeBytes: number;
  /** Offsets and lengths of requests have to be multiples of this. */
  readonly minBlockBytes: number;
  /** The most that one request may ask for. */
  readonly maxRequestBytes: number;
  /** Whether reads are answered in chunks. */
  readonly structuredReplies: boolean;
}

/** Enough for all there is; a server that goes on telling never comes to the point. */
const MAX_REPLIES = 32;
const MAX_REPLY_BYTES = 2 * MAX_STRING_BYTES;
/** What the protocol gives requests when nothing was said of block sizes. */
const DEFAULT_MIN_BLOCK_BYTES = 512;
const DEFAULT_MAX_REQUEST_BYTES = 32 * 1024 * 1024;
const MAX_MIN_BLOCK_BYTES = 64 * 1024;
const PADDING_BYTES = 124;

export class Negotiation {
  readonly #queue: ByteQueue<NbdExport>;
  #output: Buffer[] = [];

  /** @param exportName - the empty one is the server's default */
  constructor(exportName: string) {
    this.#queue = new ByteQueue(
      negotiate(exportName, (bytes) => this.#output.push(bytes)),
      MAX_REPLY_BYTES,
    );
  }

  /** What was negotiated; undefined before. */
  get result(): NbdExport | undefined {
    return this.#queue.result;
  }

  /** @returns how many bytes belonged to the negotiation. @throws DiskError VMMIG_DISK_SERVER, VMMIG_DISK_OPEN */
  feed(chunk: Buffer): number {
    return this.#queue.feed(chunk);
  }

  /** What is to be sent to the server now. */
  takeOutput(): Buffer {
    return Buffer.concat(this.#output.splice(0));
  }
}

interface Sizes {
  sizeBytes: number | null;
  minBlockBytes: number;
  maxRequestBytes: number;
}

function* negotiate(exportName: string, send: (bytes: Buffer) => void): Parser<NbdExport> {
  const greeting = yield 16;
  if (greeting.readBigUInt64BE(0) !== INIT_MAGIC) throw violation('it does not greet as NBD servers do');
  const magic = greeting.readBigUInt64BE(8);
  if (magic === OLD_STYLE_MAGIC) throw new DiskError('VMMIG_DISK_OPEN', 'the NBD server is too old to negotiate with');
  if (magic !== OPTION_MAGIC) throw violation('its greeting is followed by something else');
  const flags = (yield 2).readUInt16BE(0);
  const noZeroes = (flags & FLAG_NO_ZEROES) !== 0;
  const isFixed = (flags & FLAG_FIXED_NEWSTYLE) !== 0;
  send(u32((isFixed ? FLAG_FIXED_NEWSTYLE : 0) | (noZeroes ? FLAG_NO_ZEROES : 0)));

  const sizes: Sizes = {
    sizeBytes: null,
    minBlockBytes: DEFAULT_MIN_BLOCK_BYTES,
    maxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
  };
  let structuredReplies = false;
  // Only servers that are "fixed" answer to options that they do not know.
  if (isFixed) {
    send(optionRequest(option.structuredReply, Buffer.alloc(0)));
    structuredReplies = (yield* replies(option.structuredReply, () => {})) === null;
    send(optionRequest(option.go, goRequest(exportName)));
    const error = yield* replies(option.go, (data) => takeInfo(data, sizes));
    if (error !== null && error.type !== optionReply.unsupported)
      throw new DiskError('VMMIG_DISK_OPEN', `the NBD server refuses to export the disk: ${error.message}`);
    if (error === null) {
      if (sizes.sizeBytes === null) throw violation('it tells no size');
      return { ...sizes, sizeBytes: sizes.sizeBytes, structuredReplies };
    }
  }
  send(optionRequest(option.exportName, Buffer.from(exportName)));
  const sizeBytes = sizeOf(yield 10);
  if (!noZeroes) yield PADDING_BYTES;
  return { ...sizes, sizeBytes, structuredReplies };
}

/** Reads what is said to an option until it is decided: null when it was taken, else the error. */
function* replies(
  asked: number,
  onInfo: (data: Buffer) => void,
): Parser<{ readonly type: number; readonly message: string } | null> {
  for (let count = 0; count < MAX_REPLIES; count++) {
    const head = yield 20;
    if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw violation('it answers an option with something else');
    if (head.readUInt32BE(8) !== asked) throw violation('it answers an option that was not asked for');
    const type = head.readUInt32BE(12);
    const lengthBytes = head.readUInt32BE(16);
    if (lengthBytes > MAX_REPLY_BYTES) throw violation(`it answers an option with ${lengthBytes} bytes`);
    const data = lengthBytes === 0 ? Buffer.alloc(0) : yield lengthBytes;
    if (type >= optionReply.isError) return { type, message: data.toString() || `error ${type - optionReply.isError}` };
    if (type === optionReply.ack) return null;
    if (type === optionReply.info) onInfo(data);
    else throw violation(`it answers an option with a reply of type ${type}`);
  }
  throw violation('it has no end of what it says to an option');
}

function takeInfo(data: Buffer, sizes: Sizes): void {
  if (data.length < 2) throw violation('it tells nothing');
  const type = data.readUInt16BE(0);
  if (type === info.export) {
    if (data.length !== 12) throw violation('it tells a size of the wrong length');
    sizes.sizeBytes = sizeOf(data.subarray(2));
  } else if (type === info.blockSize) {
    if (data.length !== 14) throw violation('it tells block sizes of the wrong length');
    const minBytes = data.readUInt32BE(2);
    const maxBytes = data.readUInt32BE(10);
    const isPowerOfTwo = minBytes > 0 && (minBytes & (minBytes - 1)) === 0;
    if (!isPowerOfTwo || minBytes > MAX_MIN_BLOCK_BYTES || maxBytes < minBytes)
      throw violation(`it wants blocks of ${minBytes} to ${maxBytes} bytes`);
    sizes.minBlockBytes = minBytes;
    sizes.maxRequestBytes = Math.min(maxBytes - (maxBytes % minBytes), DEFAULT_MAX_REQUEST_BYTES);
  }
}

function sizeOf(data: Buffer): number {
  const sizeBytes = Number(data.readBigUInt64BE(0));
  if (!Number.isSafeInteger(sizeBytes)) throw violation(`it has a disk of ${sizeBytes} bytes`);
  return sizeBytes;
}

/** Of all that can be told, the block sizes are asked for; the size comes unasked. */
function goRequest(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  return Buffer.concat([u32(name.length), name, Buffer.from([0, 1, 0, info.blockSize])]);
}

function optionRequest(number: number, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(OPTION_MAGIC);
  return Buffer.concat([head, u32(number), u32(data.length), data]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
