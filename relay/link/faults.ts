/**
 * A fault on the link: the guest at the destination waits for these pages. The answer is a batch, and brings the others of
 * their aligned group with them.
 *
 *   fault = be16 block, be32 first page, be16 page count
 */
import { RelayError } from '../errors.js';

export interface FaultedPages {
  readonly block: number;
  readonly page: number;
  readonly count: number;
}

const lengthBytes = 8;
/** At 200 Mbit/s an answer of so many takes 1 ms. */
export const groupPages = 16;

export function encodeFault({ block, page, count }: FaultedPages): Buffer {
  const payload = Buffer.allocUnsafe(lengthBytes);
  payload.writeUInt16BE(block, 0);
  payload.writeUInt32BE(page, 2);
  payload.writeUInt16BE(count, 6);
  return payload;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function decodeFault(payload: Buffer): FaultedPages {
  if (payload.length !== lengthBytes)
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed fault');
  return { block: payload.readUInt16BE(0), page: payload.readUInt32BE(2), count: payload.readUInt16BE(6) };
}

/** What an answer brings at most. */
export function answeredPages({ block, page, count }: FaultedPages): FaultedPages {
  const from = page - (page % groupPages);
  const end = Math.ceil((page + count) / groupPages) * groupPages;
  return { block, page: from, count: end - from };
}
