/** Takes apart what a server sends once reads can be asked for. No I/O in here. */
import { DiskError } from '../errors.js';
import { ByteQueue, type Parser } from './byteQueue.js';
import type { PendingRead } from './pendingRead.js';
import { CHUNK_MAGIC, chunkType, FLAG_DONE, MAX_STRING_BYTES, SIMPLE_REPLY_MAGIC, violation } from './protocol.js';

/** A number, a message and an offset. */
const MAX_ERROR_BYTES = 6 + MAX_STRING_BYTES + 8;

/** The reads that are under way. */
export interface PendingReads {
  get(cookie: number): PendingRead | undefined;
  /** The server has nothing more to say about a read: it has failed (`read.failure`), or all of it is there. */
  finish(cookie: number, read: PendingRead): void;
}

export class ReplyDecoder {
  readonly #queue: ByteQueue<never>;
  readonly #reads: PendingReads;
  readonly #structured: boolean;
  /** Data that is coming goes straight where it belongs: for this read, from this offset on, so many bytes. */
  #streaming: { readonly read: PendingRead; offset: number; leftBytes: number } | undefined;

  constructor(reads: PendingReads, structured: boolean) {
    this.#reads = reads;
    this.#structured = structured;
    this.#queue = new ByteQueue(this.#parse(), MAX_ERROR_BYTES);
  }

  /** @throws DiskError VMMIG_DISK_SERVER: nothing that follows can be understood */
  feed(chunk: Buffer): void {
    for (let at = 0; ; ) {
      const streaming = this.#streaming;
      if (streaming !== undefined) {
        const count = Math.min(streaming.leftBytes, chunk.length - at);
        streaming.read.write(streaming.offset, chunk.subarray(at, at + count));
        streaming.offset += count;
        streaming.leftBytes -= count;
        at += count;
        if (streaming.leftBytes > 0) return;
        this.#streaming = undefined;
      }
      at = this.#queue.feed(chunk, at);
      if (this.#streaming === undefined && at === chunk.length) return;
    }
  }

  *#parse(): Parser<never> {
    for (;;) {
      const magic = (yield 4).readUInt32BE(0);
      if (this.#structured && magic === CHUNK_MAGIC) yield* this.#chunk();
      else if (!this.#structured && magic === SIMPLE_REPLY_MAGIC) yield* this.#simpleReply();
      else throw violation(`it answers a read with 0x${magic.toString(16)}`);
    }
  }

  *#simpleReply(): Parser<void> {
    const head = yield 12;
    const error = head.readUInt32BE(0);
    const cookie = cookieOf(head, 4);
    const read = this.#read(cookie);
    if (error === 0) {
      const lengthBytes = read.end - read.start;
      read.claim(read.start, lengthBytes);
      yield* this.#stream(read, read.start, lengthBytes);
    } else {
      read.failure = failureOf(read, error, '');
    }
    this.#reads.finish(cookie, read);
  }

  *#chunk(): Parser<void> {
    const head = yield 16;
    const isLast = (head.readUInt16BE(0) & FLAG_DONE) !== 0;
    const type = head.readUInt16BE(2);
    const cookie = cookieOf(head, 4);
    const lengthBytes = head.readUInt32BE(12);
    const read = this.#read(cookie);
    read.countChunk();
    if (type === chunkType.data && lengthBytes > 8) {
      const offset = offsetOf(yield 8);
      read.claim(offset, lengthBytes - 8);
      yield* this.#stream(read, offset, lengthBytes - 8);
    } else if (type === chunkType.hole && lengthBytes === 12) {
      const hole = yield 12;
      const offset = offsetOf(hole);
      const holeBytes = hole.readUInt32BE(8);
      read.claim(offset, holeBytes);
      read.clear(offset, holeBytes);
    } else if (type >= chunkType.isError) {
      const failure = yield* this.#error(read, type, lengthBytes);
      read.failure ??= failure;
    } else if (type !== chunkType.none || lengthBytes !== 0 || !isLast) {
      throw violation(`it answers a read with a chunk of type ${type} and ${lengthBytes} bytes`);
    }
    if (!isLast) return;
    if (read.failure === undefined && !read.isComplete) throw violation('it ends a read before all of it is told');
    this.#reads.finish(cookie, read);
  }

  /** Errors of unknown types begin as all do. */
  *#error(read: PendingRead, type: number, lengthBytes: number): Parser<DiskError> {
    const isPlaced = type === chunkType.errorOffset;
    if (lengthBytes < 6 || lengthBytes > MAX_ERROR_BYTES)
      throw violation(`it describes an error in ${lengthBytes} bytes`);
    const payload = yield lengthBytes;
    const messageEnd = 6 + payload.readUInt16BE(4);
    if (messageEnd + (isPlaced ? 8 : 0) > lengthBytes) throw violation('its error message is longer than its error');
    if (isPlaced && !read.includes(offsetOf(payload.subarray(messageEnd))))
      throw violation('it describes an error that is elsewhere');
    return failureOf(read, payload.readUInt32BE(0), payload.toString('utf8', 6, messageEnd));
  }

  /** Lets the bytes that follow go to a read, past the scratch buffer. */
  *#stream(read: PendingRead, offset: number, leftBytes: number): Parser<void> {
    this.#streaming = { read, offset, leftBytes };
    yield 0;
  }

  #read(cookie: number): PendingRead {
    const read = this.#reads.get(cookie);
    if (read === undefined) throw violation('it answers what was not asked');
    return read;
  }
}

/** Ours have 32 bits; -1 for what is none of them. */
function cookieOf(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) === 0 ? bytes.readUInt32BE(at + 4) : -1;
}

function offsetOf(bytes: Buffer): number {
  return Number(bytes.readBigUInt64BE(0));
}

function failureOf(read: PendingRead, error: number, message: string): DiskError {
  const reason = message === '' ? `error ${error}` : `${message} (error ${error})`;
  return new DiskError('VMMIG_DISK_READ', `reading ${read.start}-${read.end} failed: ${reason}`);
}
