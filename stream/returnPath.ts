/**
 * The return path: what a destination QEMU sends back on the migration channel.
 *
 *     be16 type  be16 length  data
 *
 *     1 SHUT            be32 0, or not 0 if the destination failed
 *     2 PONG            be32 the number that PING carried
 *     3 REQ_PAGES_ID    be64 offset  be32 length  u8 length  block name
 *     4 REQ_PAGES       be64 offset  be32 length                           of the block named last
 *     5 RECV_BITMAP     u8 length  block name; then outside of the message: be64 length  bits  be64 0x0123456789abcdef
 *     6 RESUME_ACK      be32 1
 *     7 SWITCHOVER_ACK  nothing
 */
import { PAGE_BYTES, ReturnPathType } from './constants.js';
import { StreamError } from './errors.js';
import { readBe64 } from './ramBlockList.js';
import { RecordBuffer } from './recordBuffer.js';

export type ReturnPathMessage =
  | { readonly type: 'shut' | 'pong' | 'resume-ack'; readonly value: number }
  | {
      readonly type: 'request-pages';
      readonly block: string;
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      /** The message names its block (REQ_PAGES_ID). */
      readonly named: boolean;
    }
  /** One bit per page, the lowest first, padded to eight bytes: which pages the destination has. */
  | { readonly type: 'received-bitmap'; readonly block: string; readonly bitmap: Buffer }
  | { readonly type: 'switchover-ack' };

export interface ReturnPathLimits {
  /** Largest bitmap: a byte for every 32 KiB of a block. */
  readonly bitmapBytes: number;
}

const BITMAP_END_HIGH = 0x01234567;
const BITMAP_END_LOW = 0x89abcdef;

const NUMBER_MESSAGES: Partial<Record<number, 'shut' | 'pong' | 'resume-ack'>> = {
  [ReturnPathType.shut]: 'shut',
  [ReturnPathType.pong]: 'pong',
  [ReturnPathType.resumeAck]: 'resume-ack',
};

/** Bytes in, messages out; any chunking, hostile input. */
export class ReturnPathDecoder {
  readonly #limits: ReturnPathLimits;
  readonly #record = new RecordBuffer(4);
  #recordOffset = 0;
  #block: string | null = null;
  #failure: StreamError | null = null;

  constructor(limits: Partial<ReturnPathLimits> = {}) {
    this.#limits = { bitmapBytes: 2 ** 29, ...limits };
  }

  /** @throws StreamError, and again on every later call */
  feed(chunk: Buffer): ReturnPathMessage[] {
    if (this.#failure !== null) throw this.#failure;
    const messages: ReturnPathMessage[] = [];
    let at = 0;
    while (at < chunk.length || this.#record.complete) {
      at = this.#record.fill(chunk, at);
      if (!this.#record.complete) break;
      const message = this.#message(this.#record.view());
      if (typeof message === 'number') {
        this.#record.need = message;
      } else {
        this.#recordOffset += this.#record.length;
        this.#record.restart(4);
        messages.push(message);
      }
    }
    return messages;
  }

  /** @throws StreamError VMMIG_STREAM_TRUNCATED if the path ends inside a message */
  end(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#record.length > 0) throw this.#fail('VMMIG_STREAM_TRUNCATED', 'The return path ends inside a message');
  }

  #fail(code: StreamError['code'], message: string): StreamError {
    this.#failure = new StreamError(code, message, this.#recordOffset);
    return this.#failure;
  }

  #corrupt(message: string): StreamError {
    return this.#fail('VMMIG_STREAM_CORRUPT', message);
  }

  /** The message, or how many bytes are needed to get further. */
  #message(bytes: Buffer): ReturnPathMessage | number {
    const type = bytes.readUInt16BE(0);
    const end = 4 + bytes.readUInt16BE(2);
    const numberMessage = NUMBER_MESSAGES[type];
    if (numberMessage !== undefined) {
      this.#check(end === 8, type, end);
      return bytes.length < end ? end : { type: numberMessage, value: bytes.readUInt32BE(4) };
    }
    switch (type) {
      case ReturnPathType.requestPages:
        this.#check(end === 16, type, end);
        return bytes.length < end ? end : this.#request(bytes, false);
      case ReturnPathType.requestPagesId:
        this.#check(end > 17, type, end);
        if (bytes.length < end) return end;
        this.#check(end === 17 + bytes[16]!, type, end);
        this.#block = bytes.toString('latin1', 17, end);
        return this.#request(bytes, true);
      case ReturnPathType.receivedBitmap:
        this.#check(end > 5, type, end);
        if (bytes.length < end) return end;
        this.#check(end === 5 + bytes[4]!, type, end);
        return this.#bitmap(bytes, end);
      case ReturnPathType.switchoverAck:
        this.#check(end === 4, type, end);
        return { type: 'switchover-ack' };
      default:
        throw this.#fail('VMMIG_STREAM_UNSUPPORTED', `Return path message of type ${type}`);
    }
  }

  #check(holds: boolean, type: number, end: number): void {
    if (!holds) throw this.#corrupt(`Return path message of type ${type} with ${end - 4} bytes of data`);
  }

  #request(bytes: Buffer, named: boolean): ReturnPathMessage {
    const block = this.#block;
    if (block === null) throw this.#corrupt('Pages are requested, but no message has named a block');
    const offsetBytes = readBe64(bytes, 4);
    const lengthBytes = bytes.readUInt32BE(12);
    if (offsetBytes % PAGE_BYTES !== 0 || lengthBytes % PAGE_BYTES !== 0 || !Number.isSafeInteger(offsetBytes)) {
      throw this.#corrupt(`Request for ${lengthBytes} bytes at ${offsetBytes}, which are not pages`);
    }
    return { type: 'request-pages', block, offsetBytes, lengthBytes, named };
  }

  #bitmap(bytes: Buffer, start: number): ReturnPathMessage | number {
    const bits = start + 8;
    if (bytes.length < bits) return bits;
    const lengthBytes = readBe64(bytes, start);
    if (lengthBytes > this.#limits.bitmapBytes || lengthBytes % 8 !== 0) {
      throw this.#corrupt(`Bitmap of ${lengthBytes} bytes`);
    }
    const end = bits + lengthBytes;
    if (bytes.length < end + 8) return end + 8;
    if (bytes.readUInt32BE(end) !== BITMAP_END_HIGH || bytes.readUInt32BE(end + 4) !== BITMAP_END_LOW) {
      throw this.#corrupt('Bitmap without its end mark');
    }
    const block = bytes.toString('latin1', 5, start);
    return { type: 'received-bitmap', block, bitmap: Buffer.from(bytes.subarray(bits, end)) };
  }
}

/** The bytes of a message; the decoder gives the same message back. */
export function encodeReturnPath(message: ReturnPathMessage): Buffer {
  switch (message.type) {
    case 'shut':
      return numberMessage(ReturnPathType.shut, message.value);
    case 'pong':
      return numberMessage(ReturnPathType.pong, message.value);
    case 'resume-ack':
      return numberMessage(ReturnPathType.resumeAck, message.value);
    case 'switchover-ack':
      return head(ReturnPathType.switchoverAck, 0, 0);
    case 'request-pages':
      return requestPages(message.offsetBytes, message.lengthBytes, message.named ? message.block : null);
    case 'received-bitmap':
      return receivedBitmap(message.block, message.bitmap);
  }
}

function head(type: number, dataBytes: number, extraBytes: number): Buffer {
  const bytes = Buffer.alloc(4 + dataBytes + extraBytes);
  bytes.writeUInt16BE(type, 0);
  bytes.writeUInt16BE(dataBytes, 2);
  return bytes;
}

function numberMessage(type: number, value: number): Buffer {
  const bytes = head(type, 4, 0);
  bytes.writeUInt32BE(value, 4);
  return bytes;
}

function requestPages(offsetBytes: number, lengthBytes: number, block: string | null): Buffer {
  const bytes =
    block === null
      ? head(ReturnPathType.requestPages, 12, 0)
      : head(ReturnPathType.requestPagesId, 13 + block.length, 0);
  bytes.writeUInt32BE(Math.floor(offsetBytes / 2 ** 32), 4);
  bytes.writeUInt32BE(offsetBytes % 2 ** 32, 8);
  bytes.writeUInt32BE(lengthBytes, 12);
  if (block !== null) {
    bytes[16] = block.length;
    bytes.write(block, 17, 'latin1');
  }
  return bytes;
}

function receivedBitmap(block: string, bitmap: Buffer): Buffer {
  const start = 5 + block.length;
  const bytes = head(ReturnPathType.receivedBitmap, 1 + block.length, 16 + bitmap.length);
  bytes[4] = block.length;
  bytes.write(block, 5, 'latin1');
  bytes.writeUInt32BE(bitmap.length, start + 4);
  bitmap.copy(bytes, start + 8);
  bytes.writeUInt32BE(BITMAP_END_HIGH, start + 8 + bitmap.length);
  bytes.writeUInt32BE(BITMAP_END_LOW, start + 12 + bitmap.length);
  return bytes;
}
