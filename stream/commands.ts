/**
 * What belongs in the commands of a stream (`StreamCommand`). Those not listed carry no data.
 *
 *     PING             be32 number, which PONG brings back
 *     POSTCOPY_ADVISE  be64 OR of all host page sizes  be64 target page size; nothing if only disk bitmaps are meant
 *     RAM_DISCARD      u8 0  u8 length  block name  NUL  ( be64 start  be64 length )*
 *     RECV_BITMAP      u8 length  block name
 *
 * PACKAGED is not here: the decoder and the encoder deal with it.
 */
import { PAGE_BYTES, StreamCommand } from './constants.js';
import { StreamError } from './errors.js';
import { readBe64 } from './ramBlockList.js';

export interface ByteRange {
  readonly startBytes: number;
  readonly lengthBytes: number;
}

const NAMES = new Map<number, string>([
  [StreamCommand.openReturnPath, 'OPEN_RETURN_PATH'],
  [StreamCommand.ping, 'PING'],
  [StreamCommand.postcopyAdvise, 'POSTCOPY_ADVISE'],
  [StreamCommand.postcopyListen, 'POSTCOPY_LISTEN'],
  [StreamCommand.postcopyRun, 'POSTCOPY_RUN'],
  [StreamCommand.postcopyRamDiscard, 'POSTCOPY_RAM_DISCARD'],
  [StreamCommand.packaged, 'PACKAGED'],
  [StreamCommand.enableColo, 'ENABLE_COLO'],
  [StreamCommand.postcopyResume, 'POSTCOPY_RESUME'],
  [StreamCommand.receivedBitmap, 'RECV_BITMAP'],
  [StreamCommand.switchoverStart, 'SWITCHOVER_START'],
]);

/** QEMU's name of a command, or its number. */
export function commandName(command: number): string {
  return NAMES.get(command) ?? String(command);
}

export function encodePing(value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(value);
  return data;
}

/** @param hostPageSizes OR of the page sizes of all blocks' host memory */
export function encodePostcopyAdvise(hostPageSizes: number = PAGE_BYTES): Buffer {
  const data = Buffer.alloc(16);
  writeBe64(data, hostPageSizes, 0);
  writeBe64(data, PAGE_BYTES, 8);
  return data;
}

/** Data of RAM_DISCARD: ranges of a block that are stale on the destination. A command has room for 4,000. */
export function encodeRamDiscard(block: string, ranges: readonly ByteRange[]): Buffer {
  const start = 3 + block.length;
  const data = Buffer.alloc(start + 16 * ranges.length);
  data[1] = block.length;
  data.write(block, 2, 'latin1');
  for (const [index, range] of ranges.entries()) {
    writeBe64(data, range.startBytes, start + 16 * index);
    writeBe64(data, range.lengthBytes, start + 16 * index + 8);
  }
  return data;
}

/** @throws StreamError VMMIG_STREAM_CORRUPT, with `offset` for the command's place in the stream */
export function decodeRamDiscard(data: Buffer, offset = 0): { block: string; ranges: ByteRange[] } {
  const start = 3 + (data[1] ?? 0);
  if (data.length < start || data[0] !== 0 || data[start - 1] !== 0 || (data.length - start) % 16 !== 0) {
    throw new StreamError('VMMIG_STREAM_CORRUPT', `POSTCOPY_RAM_DISCARD of ${data.length} bytes`, offset);
  }
  const ranges: ByteRange[] = [];
  for (let at = start; at < data.length; at += 16) {
    ranges.push({ startBytes: readBe64(data, at), lengthBytes: readBe64(data, at + 8) });
  }
  return { block: data.toString('latin1', 2, start - 1), ranges };
}

function writeBe64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value % 2 ** 32, at + 4);
}
