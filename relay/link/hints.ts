/**
 * The cache map, told to the destination before any page: it can begin to put page cache back while the link is busy
 * with what only the source has. A hint like the map itself: what was read counts once a reference has confirmed it.
 *
 *   hints = be32 length of the runs, packed pages of: run*
 *   run   = varint block difference, varint page difference, varint page count, varint disk,
 *           zigzag varint of the disk offset in sectors of 512 bytes, less where the run before ended
 *
 * Runs ascend and do not overlap. A page difference counts from the end of the run before, or from 0 in a new block.
 */
import { digestBytes, pageBytes } from '../digest.js';
import { RelayError } from '../errors.js';
import { packPages, unpackPages } from './batch.js';

export interface HintRun {
  readonly block: number;
  readonly page: number;
  readonly count: number;
  readonly disk: number;
  readonly diskOffsetBytes: number;
}

const sectorBytes = 512;
const sectorsPerPage = pageBytes / sectorBytes;
/** A reference has 48 bits for its place. */
const maxDiskSectors = 2 ** 48 / sectorBytes;
/** In one frame; more runs take more frames. */
const maxHintRuns = 2 ** 16;
const maxRunBytes = 32;

/** One payload for each 65,536 runs. */
export function encodeHints(runs: Iterable<HintRun>): Buffer[] {
  const payloads: Buffer[] = [];
  let some: HintRun[] = [];
  for (const run of runs) {
    some.push(run);
    if (some.length < maxHintRuns) continue;
    payloads.push(encodeFrame(some));
    some = [];
  }
  if (some.length > 0) payloads.push(encodeFrame(some));
  return payloads;
}

function encodeFrame(runs: readonly HintRun[]): Buffer {
  const bytes = Buffer.allocUnsafe(runs.length * maxRunBytes);
  let length = 0;
  const varint = (value: number) => {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[length++] = (rest % 128) + 128;
    bytes[length++] = rest;
  };
  let block = 0;
  let page = 0;
  let sector = 0;
  for (const run of runs) {
    if (run.block === block && run.page < page) continue; // memory seen at two addresses: once is enough
    const start = run.diskOffsetBytes / sectorBytes;
    varint(run.block - block);
    varint(run.block === block ? run.page - page : run.page);
    varint(run.count);
    varint(run.disk);
    varint(start >= sector ? 2 * (start - sector) : 2 * (sector - start) - 1);
    block = run.block;
    page = run.page + run.count;
    sector = start + run.count * sectorsPerPage;
  }
  const lengthField = Buffer.alloc(4);
  lengthField.writeUInt32BE(length);
  return Buffer.concat([lengthField, packPages(bytes.subarray(0, length))]);
}

/** @throws RelayError when a run lies outside its block, or the runs do not ascend */
export function decodeHints(payload: Buffer, pagesOfBlock: readonly number[]): HintRun[] {
  if (payload.length < 5) throw malformed();
  const rawBytes = payload.readUInt32BE(0);
  if (rawBytes > maxHintRuns * maxRunBytes) throw malformed();
  const bytes = unpackPages(payload[4]!, payload.subarray(5), rawBytes);
  const runs: HintRun[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 49) throw malformed();
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  let block = 0;
  let page = 0;
  let sector = 0;
  while (at < bytes.length) {
    const blockDifference = varint();
    const pageDifference = varint();
    const count = varint();
    const disk = varint();
    const distance = varint();
    page = (blockDifference === 0 ? page : 0) + pageDifference;
    block += blockDifference;
    sector += distance % 2 === 0 ? distance / 2 : -(distance + 1) / 2;
    const limit = pagesOfBlock[block];
    const isOnDisk = sector >= 0 && sector + count * sectorsPerPage <= maxDiskSectors;
    if (limit === undefined || count === 0 || page + count > limit || !isOnDisk) throw malformed();
    if (runs.length === maxHintRuns) throw malformed();
    runs.push({ block, page, count, disk, diskOffsetBytes: sector * sectorBytes });
    page += count;
    sector += count * sectorsPerPage;
  }
  return runs;
}

/** A run that was hinted at is in place at the destination, with this digest: be16 block, be32 first page, the digest. */
export interface RunInPlace {
  readonly block: number;
  readonly page: number;
  readonly digest: Buffer;
}

const inPlaceBytes = 6 + digestBytes;

export function encodeInPlace({ block, page, digest }: RunInPlace): Buffer {
  const payload = Buffer.allocUnsafe(inPlaceBytes);
  payload.writeUInt16BE(block, 0);
  payload.writeUInt32BE(page, 2);
  digest.copy(payload, 6);
  return payload;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function decodeInPlace(payload: Buffer): RunInPlace {
  if (payload.length !== inPlaceBytes)
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination relay told of a run in a malformed way');
  return { block: payload.readUInt16BE(0), page: payload.readUInt32BE(2), digest: Buffer.from(payload.subarray(6)) };
}

function malformed(): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a malformed cache map');
}
