/**
 * Which pages of the migration stream are page cache, and where on which disk: the agent's cache
 * map (guest page frames) seen through the machine's memory layout (RAM blocks). A hint throughout.
 */
import type { CacheRuns } from '../../guest-agent/cacheMap.js';
import { type BlockSize, digestBytes, pageBytes } from '../digest.js';
import { maxReferencePages } from '../link/batch.js';
import type { HintRun } from '../link/hints.js';

/** A stretch of guest physical addresses that is RAM. */
export interface GpaRange {
  readonly gpaStart: number;
  readonly lengthBytes: number;
  readonly block: string;
  readonly blockOffset: number;
}

export interface CacheMap {
  readonly runs: CacheRuns;
  readonly gpaMap: readonly GpaRange[];
  /** For each disk of the agent: its index in the destination's list of disks, -1 where it has none. */
  readonly diskIndexes: readonly number[];
}

/** A reference has 48 bits for its place on the disk. */
const maxDiskBytes = 2 ** 48;

/** Columns: there may be millions of runs. */
interface BlockRuns {
  count: number;
  readonly page: Uint32Array;
  readonly pageCount: Uint8Array;
  readonly disk: Uint16Array;
  readonly diskOffsetBytes: Float64Array;
  /** Where the last look-up ended: QEMU sends pages in ascending order, so the next one is near. */
  cursor: number;
  /** One bit a page: already sent since this map was made, so changed since. */
  readonly sent: Uint8Array;
  /** Digests of runs that the destination has read ahead, zeroes of all others; null before the first. */
  inPlace: Buffer | null;
}

export class TeleportMap {
  readonly #blocks: BlockRuns[];
  /** Of the last page found. */
  disk = 0;
  diskOffsetBytes = 0;
  /** Number of the run, of `maxReferencePages` at most, that the page belongs to in its block. */
  run = 0;

  constructor(blocks: readonly BlockSize[], map: CacheMap) {
    const counts = blocks.map(() => 0);
    cutAtRanges(blocks, map, (block) => counts[block]!++);
    this.#blocks = blocks.map((block, index) => emptyColumns(block, counts[index]!));
    cutAtRanges(blocks, map, (block, page, pageCount, disk, diskOffsetBytes) => {
      const runs = this.#blocks[block]!;
      const at = runs.count++;
      runs.page[at] = page;
      runs.pageCount[at] = pageCount;
      runs.disk[at] = disk;
      runs.diskOffsetBytes[at] = diskOffsetBytes;
    });
    for (const [index, runs] of this.#blocks.entries()) if (!ascends(runs)) this.#blocks[index] = sorted(runs);
  }

  /** The destination has read a whole run ahead, and found it to have this digest. */
  noteInPlace(block: number, page: number, digest: Buffer): void {
    const runs = this.#blocks[block];
    const at = runs === undefined ? -1 : lastAtOrBefore(runs.page, runs.count, page);
    if (at < 0 || runs!.page[at] !== page) return;
    runs!.inPlace ??= Buffer.alloc(runs!.count * digestBytes);
    digest.copy(runs!.inPlace, at * digestBytes);
  }

  /** Whether a whole run is in place at the destination already, as it is here. */
  isInPlace(block: number, page: number, count: number, digest: Buffer): boolean {
    const runs = this.#blocks[block]!;
    const at = lastAtOrBefore(runs.page, runs.count, page);
    if (runs.inPlace === null || runs.page[at] !== page || runs.pageCount[at] !== count) return false;
    return digest.compare(runs.inPlace, at * digestBytes, (at + 1) * digestBytes) === 0;
  }

  /** All runs, cut as references are. */
  *runs(): Generator<HintRun> {
    for (const [block, runs] of this.#blocks.entries())
      for (let at = 0; at < runs.count; at++)
        yield {
          block,
          page: runs.page[at]!,
          count: runs.pageCount[at]!,
          disk: runs.disk[at]!,
          diskOffsetBytes: runs.diskOffsetBytes[at]!,
        };
  }

  /** Whether a page is page cache, whoever asks and however often. */
  holds(block: number, page: number): boolean {
    const runs = this.#blocks[block];
    const at = runs === undefined ? -1 : lastAtOrBefore(runs.page, runs.count, page);
    return at >= 0 && page - runs!.page[at]! < runs!.pageCount[at]!;
  }

  /**
   * Whether a page may be teleported; sets `run`, `disk` and `diskOffsetBytes`. A page is found once for each
   * map: when QEMU sends it again the guest has written to it, and only a newer map can know what.
   */
  find(block: number, page: number): boolean {
    const runs = this.#blocks[block]!;
    const bit = 1 << (page & 7);
    if ((runs.sent[page >> 3]! & bit) !== 0) return false;
    runs.sent[page >> 3]! |= bit;
    let at = runs.cursor;
    if (at >= runs.count || page < runs.page[at]! || (at + 1 < runs.count && page >= runs.page[at + 1]!)) {
      at = lastAtOrBefore(runs.page, runs.count, page);
      if (at < 0) return false;
      runs.cursor = at;
    }
    const distance = page - runs.page[at]!;
    if (distance >= runs.pageCount[at]!) return false;
    this.run = at;
    this.disk = runs.disk[at]!;
    this.diskOffsetBytes = runs.diskOffsetBytes[at]! + distance * pageBytes;
    return true;
  }
}

type PieceHandler = (block: number, page: number, pageCount: number, disk: number, diskOffsetBytes: number) => void;

function cutAtRanges(
  blocks: readonly BlockSize[],
  { runs, gpaMap, diskIndexes }: CacheMap,
  handle: PieceHandler,
): void {
  const blockIndex = new Map(blocks.map((block, index) => [block.name, index]));
  const ranges = gpaMap
    .filter(({ block }) => blockIndex.has(block))
    .toSorted((left, right) => left.gpaStart - right.gpaStart);
  let range = 0;
  for (let run = 0; run < runs.count; run++) {
    const disk = diskIndexes[runs.disk[run]!] ?? -1;
    const lengthBytes = runs.pageCount[run]! * pageBytes;
    if (disk < 0 || runs.diskOffsetBytes[run]! + lengthBytes > maxDiskBytes) continue;
    const start = runs.pfn[run]! * pageBytes;
    const end = start + lengthBytes;
    while (range < ranges.length && ranges[range]!.gpaStart + ranges[range]!.lengthBytes <= start) range++;
    for (let at = range; at < ranges.length && ranges[at]!.gpaStart < end; at++) {
      const { gpaStart, lengthBytes: rangeBytes, block, blockOffset } = ranges[at]!;
      const from = Math.max(start, gpaStart);
      const to = Math.min(end, gpaStart + rangeBytes);
      const index = blockIndex.get(block)!;
      const first = Math.ceil((from - gpaStart + blockOffset) / pageBytes);
      const last = Math.floor(Math.min(to - gpaStart + blockOffset, blocks[index]!.lengthBytes) / pageBytes);
      const offsetBytes = runs.diskOffsetBytes[run]! + from - start;
      for (let page = first; page < last; page += maxReferencePages)
        handle(index, page, Math.min(maxReferencePages, last - page), disk, offsetBytes + (page - first) * pageBytes);
    }
  }
}

function emptyColumns({ lengthBytes }: Pick<BlockSize, 'lengthBytes'>, count: number): BlockRuns {
  return {
    count: 0,
    page: new Uint32Array(count),
    pageCount: new Uint8Array(count),
    disk: new Uint16Array(count),
    diskOffsetBytes: new Float64Array(count),
    cursor: 0,
    sent: new Uint8Array(Math.ceil(lengthBytes / pageBytes / 8) + 1),
    inPlace: null,
  };
}

/** As the agent tells them, unless it lies or memory is seen at several addresses. */
function ascends({ count, page }: BlockRuns): boolean {
  for (let at = 1; at < count; at++) if (page[at]! < page[at - 1]!) return false;
  return true;
}

function sorted(runs: BlockRuns): BlockRuns {
  const order = Uint32Array.from({ length: runs.count }, (_, at) => at);
  order.sort((left, right) => runs.page[left]! - runs.page[right]!);
  return {
    ...runs,
    page: runs.page.map((_, at) => runs.page[order[at]!]!),
    pageCount: runs.pageCount.map((_, at) => runs.pageCount[order[at]!]!),
    disk: runs.disk.map((_, at) => runs.disk[order[at]!]!),
    diskOffsetBytes: runs.diskOffsetBytes.map((_, at) => runs.diskOffsetBytes[order[at]!]!),
  };
}

function lastAtOrBefore(pages: Uint32Array, count: number, page: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (pages[middle]! <= page) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
