/**
 * A reference that the destination's disk does not hold. Both frames name the batch by their sequence.
 *
 *   request = be16 record
 *   resend  = be16 record, then packed pages: u8 encoding, bytes
 */
import { RelayError } from '../errors.js';
import { packPages } from './batch.js';

export function encodeResendRequest(record: number): Buffer {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(record);
  return payload;
}

/** @returns the record's index in its batch; -1 when there is none in the request */
export function decodeResendRequest(payload: Buffer): number {
  return payload.length === 2 ? payload.readUInt16BE(0) : -1;
}

/** @param request - that is answered */
export function encodeResend(request: Buffer, pages: Buffer): Buffer {
  return Buffer.concat([request, packPages(pages)]);
}

export interface Resend {
  readonly record: number;
  readonly encoding: number;
  readonly packed: Buffer;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function decodeResend(payload: Buffer): Resend {
  if (payload.length < 3) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent nothing');
  return { record: payload.readUInt16BE(0), encoding: payload[2]!, packed: payload.subarray(3) };
}
