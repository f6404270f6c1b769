/**
 * Frames between the host and the guest agent, without any I/O: bytes in, frames out, and the other way round.
 * What the payloads mean is in messages.ts; the whole protocol, as tables, is in docs/agent-protocol.md.
 *
 *     u32 magic "VMGA"   u8 version 1   u8 type   u16 0   u64 session   u32 request   u32 length   u32 crc32   payload
 *
 * All numbers are little-endian. The checksum covers the header before it and the payload.
 */

import { crc32 } from 'node:zlib';
import { protocolError } from './errors.js';

export const PROTOCOL_VERSION = 1;

const MAGIC = Buffer.from('VMGA', 'latin1');
const FRAME_VERSION = 1;
const HEADER_BYTES = 28;
const CHECKSUM_AT = 24;
const MAX_PAYLOAD_BYTES = 128 * 1024;
/** The agent's answers to a HELLO are short: anything longer found while looking for one is something else. */
const MAX_GREETING_BYTES = 256;
/** What may precede the answer to a HELLO: frames of an earlier session that were on their way. */
const MAX_SKIPPED_BYTES = 16 * 1024 * 1024;

export const frameType = {
  hello: 0x01,
  scan: 0x02,
  cancel: 0x03,
  ping: 0x04,
  /** How many bytes have arrived altogether, for an agent that writes to a file: u64. Of no session. */
  read: 0x05,
  helloAck: 0x81,
  disks: 0x82,
  groups: 0x83,
  removed: 0x84,
  done: 0x85,
  cancelled: 0x86,
  pong: 0x87,
  error: 0x88,
} as const;

/** One frame from the agent. The payload is only valid until the handler returns. */
export interface Frame {
  type: number;
  request: number;
  payload: Buffer;
}

/** Encodes one frame. `session` is 8 bytes. */
export function encodeFrame(type: number, session: Buffer, request: number, payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + payload.length);
  MAGIC.copy(frame, 0);
  frame.writeUInt8(FRAME_VERSION, 4);
  frame.writeUInt8(type, 5);
  session.copy(frame, 8);
  frame.writeUInt32LE(request, 16);
  frame.writeUInt32LE(payload.length, 20);
  frame.set(payload, HEADER_BYTES);
  frame.writeUInt32LE(checksum(frame, 0, payload.length), CHECKSUM_AT);
  return frame;
}

function checksum(bytes: Buffer, at: number, length: number): number {
  const head = crc32(bytes.subarray(at, at + CHECKSUM_AT));
  return crc32(bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length), head);
}

/**
 * Finds the frames of one session in a stream of bytes, in chunks of any size.
 *
 * Until the agent has answered this session's HELLO, everything else is skipped: the rest of a frame that another host
 * did not read to its end, frames of sessions before a migration. From then on every byte has to be right.
 */
export class FrameDecoder {
  readonly #session: Buffer;
  #pending = Buffer.alloc(0);
  #greeted = false;
  #skippedBytes = 0;

  /** @param session - the 8 bytes sent in the HELLO */
  constructor(session: Buffer) {
    this.#session = session;
  }

  /**
   * Takes the next bytes and calls `onFrame` for each frame that is complete.
   * @throws AgentError `VMMIG_AGENT_PROTOCOL`; the decoder is of no use afterwards.
   */
  feed(bytes: Uint8Array, onFrame: (frame: Frame) => void): void {
    let buffer = this.#pending.length > 0 ? Buffer.concat([this.#pending, bytes]) : Buffer.from(bytes);
    while (buffer.length > 0) {
      const used = this.#greeted ? this.#takeFrame(buffer, onFrame) : this.#seekGreeting(buffer, onFrame);
      if (used === 0) break;
      buffer = buffer.subarray(used);
    }
    this.#pending = buffer;
  }

  /** Skips to the next thing that may be the answer to our HELLO; returns the bytes used, 0 to wait for more. */
  #seekGreeting(buffer: Buffer, onFrame: (frame: Frame) => void): number {
    const at = buffer.indexOf(MAGIC);
    if (at !== 0) return this.#skip(at > 0 ? at : Math.max(0, buffer.length - MAGIC.length + 1));
    if (buffer.length < HEADER_BYTES) return 0;
    const type = buffer.readUInt8(5);
    const length = buffer.readUInt32LE(20);
    const plausible =
      buffer.readUInt8(4) === FRAME_VERSION &&
      (type === frameType.helloAck || type === frameType.error) &&
      this.#session.equals(buffer.subarray(8, 16)) &&
      length <= MAX_GREETING_BYTES;
    if (!plausible) return this.#skip(1);
    if (buffer.length < HEADER_BYTES + length) return 0;
    if (buffer.readUInt32LE(CHECKSUM_AT) !== checksum(buffer, 0, length)) return this.#skip(1);
    this.#greeted = true;
    return this.#emit(buffer, length, onFrame);
  }

  #skip(count: number): number {
    this.#skippedBytes += count;
    if (this.#skippedBytes > MAX_SKIPPED_BYTES) throw protocolError('no answer to HELLO in what it keeps sending');
    return count;
  }

  #takeFrame(buffer: Buffer, onFrame: (frame: Frame) => void): number {
    if (buffer.length < HEADER_BYTES) return 0;
    if (!MAGIC.equals(buffer.subarray(0, 4))) throw protocolError('no frame where one has to begin');
    if (buffer.readUInt8(4) !== FRAME_VERSION) throw protocolError(`frame version ${buffer.readUInt8(4)}`);
    if (!this.#session.equals(buffer.subarray(8, 16))) throw protocolError('a frame of another session');
    const length = buffer.readUInt32LE(20);
    if (length > MAX_PAYLOAD_BYTES) throw protocolError(`a frame of ${length} bytes`);
    if (buffer.length < HEADER_BYTES + length) return 0;
    if (buffer.readUInt32LE(CHECKSUM_AT) !== checksum(buffer, 0, length)) throw protocolError('a wrong checksum');
    return this.#emit(buffer, length, onFrame);
  }

  #emit(buffer: Buffer, length: number, onFrame: (frame: Frame) => void): number {
    const payload = buffer.subarray(HEADER_BYTES, HEADER_BYTES + length);
    onFrame({ type: buffer.readUInt8(5), request: buffer.readUInt32LE(16), payload });
    return HEADER_BYTES + length;
  }
}
