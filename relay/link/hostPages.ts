/**
 * How the destination relay tells of huge pages of its host, where there are any:
 *
 *   hostPages = be32 guest pages in a host page, for each block
 */
import { RelayError } from '../errors.js';

/** In guest pages: 32 MiB. */
export const maxHostPage = 8192;

/** @param pagesPerHostPage - for each block */
export function encodeHostPages(pagesPerHostPage: readonly number[]): Buffer {
  const payload = Buffer.alloc(4 * pagesPerHostPage.length);
  for (const [at, pages] of pagesPerHostPage.entries()) payload.writeUInt32BE(pages, 4 * at);
  return payload;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function decodeHostPages(payload: Buffer, blockCount: number): number[] {
  if (payload.length !== 4 * blockCount) throw malformed();
  const pagesPerHostPage = Array.from({ length: blockCount }, (_, at) => payload.readUInt32BE(4 * at));
  if (pagesPerHostPage.some((pages) => pages < 1 || pages > maxHostPage)) throw malformed();
  return pagesPerHostPage;
}

function malformed(): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', 'the destination has impossible pages');
}
