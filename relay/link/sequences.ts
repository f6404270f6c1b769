/** The frames or batches that an acknowledgement speaks of: be32 sequence, once or more. */
import { RelayError } from '../errors.js';

const sequenceBytes = 4;

export function encodeSequences(sequences: readonly number[]): Buffer {
  const payload = Buffer.allocUnsafe(sequences.length * sequenceBytes);
  for (const [at, sequence] of sequences.entries()) payload.writeUInt32BE(sequence, at * sequenceBytes);
  return payload;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function decodeSequences(payload: Buffer): number[] {
  if (payload.length % sequenceBytes !== 0)
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination sent a malformed acknowledgement');
  return Array.from({ length: payload.length / sequenceBytes }, (_, at) => payload.readUInt32BE(at * sequenceBytes));
}
