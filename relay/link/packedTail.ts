/**
 * What follows the guest's RAM in QEMU's stream, compressed: the guest stands still while it crosses the link, and most of
 * it is the text that describes it.
 *
 *   packed tail = be32 length, zstd frame of so many bytes
 */
import { RelayError } from '../errors.js';
import { compressOnce, decompressInto } from '../zstd.js';

const headerBytes = 4;
/** Of what one frame carries, unpacked. */
export const maxTailPayloadBytes = 1024 * 1024;

/** @param bytes - `maxTailPayloadBytes` at most. @returns null when it would save next to nothing */
export function packTail(bytes: Buffer): Buffer | null {
  const packed = compressOnce(bytes);
  if (packed.length > bytes.length - bytes.length / 32 - headerBytes) return null;
  const payload = Buffer.allocUnsafe(headerBytes + packed.length);
  payload.writeUInt32BE(bytes.length, 0);
  payload.set(packed, headerBytes);
  return payload;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL unless it unpacks to what it says */
export function unpackTail(payload: Buffer): Buffer {
  const lengthBytes = payload.length < headerBytes ? 0 : payload.readUInt32BE(0);
  if (lengthBytes === 0 || lengthBytes > maxTailPayloadBytes)
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a malformed tail');
  const bytes = Buffer.allocUnsafe(lengthBytes);
  try {
    if (decompressInto(bytes, payload.subarray(headerBytes)) === lengthBytes) return bytes;
  } catch (cause) {
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a tail that cannot be unpacked', cause);
  }
  throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a tail that is shorter than it says');
}
