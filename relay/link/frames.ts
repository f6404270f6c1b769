/**
 * The frames of the link, without any I/O. docs/link-protocol.md has the same grammar as a table.
 *
 *   frame    = be32 payload length, u8 type, be32 sequence, payload
 *
 * Types below 16 are *ordered*: the source numbers them 0, 1, 2, … over all connections, and the destination
 * handles them in that order. The others are handled as they arrive, and `sequence` names the
 * ordered frame they speak of (or is 0).
 */
import { RelayError } from '../errors.js';

export const linkVersion = 6;

export const frameType = {
  // ordered, source to destination
  blocks: 1,
  raw: 2,
  batch: 3,
  endOfRam: 4,
  tail: 5,
  root: 6,
  hints: 7,
  remote: 8,
  device: 9,
  go: 10,
  memory: 11,
  ahead: 12,
  packedTail: 13,
  // as they arrive
  hello: 16,
  welcome: 17,
  refuse: 18,
  acknowledge: 19,
  resendRequest: 20,
  resend: 21,
  rootResult: 22,
  ping: 23,
  pong: 24,
  failure: 25,
  received: 26,
  goodbye: 27,
  fault: 28,
  answer: 29,
  running: 30,
  refused: 31,
  inPlace: 32,
  placed: 33,
  hostPages: 34,
  givenBack: 35,
  released: 36,
} as const;

export const frameHeaderBytes = 9;
/** A frame never carries more than a batch at its bounds needs. */
export const maxFramePayloadBytes = 4 * 1024 * 1024;

export interface Frame {
  readonly type: number;
  readonly sequence: number;
  readonly payload: Buffer;
}

export function isOrdered(type: number): boolean {
  return type < 16;
}

export function encodeFrameHeader(type: number, sequence: number, payloadBytes: number): Buffer {
  const header = Buffer.allocUnsafe(frameHeaderBytes);
  header.writeUInt32BE(payloadBytes, 0);
  header[4] = type;
  header.writeUInt32BE(sequence, 5);
  return header;
}

/** Chunks below this are gathered. */
const smallBytes = 2048;
const gatheredBytes = 16 * 1024;
const nothing = Buffer.alloc(0);

const knownTypes = new Set<number>(Object.values(frameType));

/** Cuts bytes in any chunking into frames. What it cannot be sure of is a protocol error. */
export class FrameDecoder {
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;
  /** Room behind the last chunk, where that is memory of this decoder's own. */
  #room: Buffer = nothing;

  *feed(chunk: Buffer): Generator<Frame> {
    this.#add(chunk);
    this.#bufferedBytes += chunk.length;
    while (this.#bufferedBytes >= frameHeaderBytes) {
      const header = this.#front(frameHeaderBytes);
      const payloadBytes = header.readUInt32BE(0);
      const type = header[4]!;
      if (payloadBytes > maxFramePayloadBytes)
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the other relay announced a frame of ${payloadBytes} bytes`);
      if (!knownTypes.has(type))
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the other relay sent a frame of unknown type ${type}`);
      if (this.#bufferedBytes < frameHeaderBytes + payloadBytes) return;
      const frame = this.#front(frameHeaderBytes + payloadBytes);
      this.#consume(frame.length);
      yield { type, sequence: frame.readUInt32BE(5), payload: frame.subarray(frameHeaderBytes) };
    }
  }

  /** Bytes of frames that have not come whole. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Takes the bytes that are not yet part of a frame that was handed out. */
  takeRest(): Buffer {
    const rest = Buffer.concat(this.#chunks, this.#bufferedBytes);
    this.#chunks = [];
    this.#room = nothing;
    this.#bufferedBytes = 0;
    return rest;
  }

  /** A frame in very many pieces is not to take many times its memory. */
  #add(chunk: Buffer): void {
    if (chunk.length === 0) return;
    if (chunk.length >= smallBytes || this.#chunks.length === 0) {
      this.#chunks.push(chunk);
      this.#room = nothing;
      return;
    }
    if (chunk.length > this.#room.length) {
      this.#room = Buffer.allocUnsafeSlow(gatheredBytes);
      this.#chunks.push(this.#room.subarray(0, 0));
    }
    const last = this.#chunks.length - 1;
    const gathered = this.#chunks[last]!;
    chunk.copy(this.#room, 0);
    this.#chunks[last] = Buffer.from(this.#room.buffer, gathered.byteOffset, gathered.length + chunk.length);
    this.#room = this.#room.subarray(chunk.length);
  }

  /** The first `lengthBytes`, contiguous; joins chunks only when they do not lie in the first. */
  #front(lengthBytes: number): Buffer {
    const first = this.#chunks[0]!;
    if (first.length >= lengthBytes) return first.subarray(0, lengthBytes);
    let joinedBytes = 0;
    let count = 0;
    while (joinedBytes < lengthBytes) joinedBytes += this.#chunks[count++]!.length;
    const joined = Buffer.concat(this.#chunks.splice(0, count), joinedBytes);
    this.#chunks.unshift(joined);
    // What was gathered may be part of it.
    if (this.#chunks.length === 1) this.#room = nothing;
    return joined.subarray(0, lengthBytes);
  }

  #consume(lengthBytes: number): void {
    const first = this.#chunks[0]!;
    if (first.length === lengthBytes) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(lengthBytes);
    this.#bufferedBytes -= lengthBytes;
  }
}
