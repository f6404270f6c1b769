/**
 * The remote set: which pages the guest at the destination may touch before their bytes have been sent. It
 * is told while the guest is stopped, so it has to be found, packed and unpacked in no time.
 *
 *   set   = be32 length of the runs when unpacked, u8 encoding (0 plain, 1 zstd), runs
 *   runs  = for each block: varint number of runs, then for each
 *           varint pages since the end of the run before, varint pages in the run
 *
 * A varint has seven bits a byte, the lowest first, and the eighth says that another follows (LEB128).
 */
import { RelayError } from '../errors.js';
import { packPages, unpackPages } from '../link/batch.js';

const headerBytes = 5;
const maxVarintBytes = 5;

/** @param runsOfBlock - for each block: first page and count of each run, ascending and apart */
export function encodeRemoteSet(runsOfBlock: readonly Uint32Array[]): Buffer {
  const numbers = runsOfBlock.reduce((sum, runs) => sum + runs.length, runsOfBlock.length);
  const raw = Buffer.allocUnsafe(numbers * maxVarintBytes);
  let at = 0;
  const write = (value: number) => {
    for (; value > 0x7f; value >>>= 7) raw[at++] = (value & 0x7f) | 0x80;
    raw[at++] = value;
  };
  for (const runs of runsOfBlock) {
    write(runs.length / 2);
    for (let index = 0, end = 0; index < runs.length; index += 2) {
      write(runs[index]! - end);
      write(runs[index + 1]!);
      end = runs[index]! + runs[index + 1]!;
    }
  }
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(at, 0);
  return Buffer.concat([length, packPages(raw.subarray(0, at))]);
}

/** How long a set of these blocks is at most. */
export function maxRemoteSetBytes(pagesOfBlock: readonly number[]): number {
  // Every run and every gap is at least a page, and no varint is longer than the pages it stands for; but the first gap
  // of a block may be none, and the number of its runs comes before.
  return pagesOfBlock.reduce((sum, pages) => sum + pages, headerBytes + pagesOfBlock.length * (maxVarintBytes + 1));
}

/**
 * @param pagesOfBlock - number of pages of each RAM block
 * @returns for each block: first page and count of each run, ascending and apart
 * @throws RelayError `VMMIG_LINK_PROTOCOL` for anything that is not such a set of these blocks
 */
export function decodeRemoteSet(payload: Buffer, pagesOfBlock: readonly number[]): Uint32Array[] {
  if (payload.length < headerBytes) throw malformed('without a header');
  const rawBytes = payload.readUInt32BE(0);
  if (rawBytes > maxRemoteSetBytes(pagesOfBlock) - headerBytes) throw malformed(`of ${rawBytes} bytes`);
  const raw = unpackPages(payload[4]!, payload.subarray(headerBytes), rawBytes);
  let at = 0;
  const read = () => {
    let value = 0;
    for (let shift = 0; shift < 7 * maxVarintBytes; shift += 7) {
      if (at === raw.length) throw malformed('that ends early');
      const byte = raw[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw malformed('with an endless number');
  };
  const runsOfBlock = pagesOfBlock.map((pages) => {
    const count = read();
    if (count > pages || count * 2 > raw.length - at) throw malformed(`of ${count} runs in ${pages} pages`);
    const runs = new Uint32Array(count * 2);
    let end = 0;
    for (let index = 0; index < runs.length; index += 2) {
      const gap = read();
      const length = read();
      if (length === 0 || (gap === 0 && index > 0)) throw malformed('whose runs are not apart');
      runs[index] = end + gap;
      runs[index + 1] = length;
      end += gap + length;
      if (end > pages) throw malformed(`with a run up to page ${end} of ${pages}`);
    }
    return runs;
  });
  if (at !== raw.length) throw malformed('with something behind it');
  return runsOfBlock;
}

function malformed(what: string): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', `the other relay sent a remote set ${what}`);
}
