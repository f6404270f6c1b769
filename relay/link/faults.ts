/** A fault on the link: be16 block, be32 first page, be16 page count. The guest waits for these pages. */
import { RelayError } from '../errors.js';

export interface FaultedPages {
  readonly block: number;
  readonly page: number;
  readonly count: number;
}

const lengthBytes = 8;

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
