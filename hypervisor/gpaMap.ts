/**
 * Where guest physical memory is kept: which RAMBlock, at which offset. Read from HMP `info mtree -f`, whose flat view
 * of the address space "memory" is the only place where QEMU tells it for every machine type:
 *
 *     FlatView #0
 *      AS "memory", root: system
 *      AS "cpu-memory-0", root: system
 *      Root memory region: system
 *       0000000000000000-00000000000bffff (prio 0, ram): pc.ram
 *       00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000
 *       0000000000100000-000000003fffffff (prio 0, ram): pc.ram @0000000000100000 KVM
 *
 * The number after `@` is the offset in the memory region; the accelerator follows where it maps the region.
 */
import type { RamBlockInfo } from './ramBlocks.js';

/** A range of guest physical memory that lies in one piece in one RAMBlock. */
export interface GpaRange {
  readonly gpaStart: number;
  readonly lengthBytes: number;
  /** The RAMBlock's name, as in the migration stream. */
  readonly block: string;
  readonly blockOffset: number;
}

const RANGE =
  /^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): (.+?)(?: @([0-9a-f]{16}))?(?: (?:KVM|hvf|nvmm|whpx|mshv|xen))?$/;

/**
 * The guest's writable memory, sorted by address. Regions that are no RAMBlock of their own name, or of which there are
 * several, are left out: the map is for finding page cache, and a page that is not found is sent as it is.
 */
export function parseGpaMap(mtree: string, blocks: readonly RamBlockInfo[]): GpaRange[] {
  const ranges: GpaRange[] = [];
  let isMemory = false;
  for (const line of mtree.split(/\r?\n/)) {
    if (line.startsWith('FlatView ')) isMemory = false;
    else if (line.startsWith(' AS "memory",')) isMemory = true;
    if (!isMemory) continue;
    const [, first, last, region, offset = '0'] = RANGE.exec(line) ?? [];
    if (first === undefined || last === undefined || region === undefined) continue;
    const block = blockOf(region, blocks);
    if (block === undefined) continue;
    const gpaStart = Number.parseInt(first, 16);
    const lengthBytes = Number.parseInt(last, 16) + 1 - gpaStart;
    const blockOffset = Number.parseInt(offset, 16);
    if (blockOffset + lengthBytes > block.totalBytes) continue;
    ranges.push({ gpaStart, lengthBytes, block: block.name, blockOffset });
  }
  return ranges.sort((left, right) => left.gpaStart - right.gpaStart);
}

/** A device's RAMBlock carries the device's path before the region's name: `0000:00:01.0/vga.vram`. */
function blockOf(region: string, blocks: readonly RamBlockInfo[]): RamBlockInfo | undefined {
  const exact = blocks.find(({ name }) => name === region);
  if (exact !== undefined) return exact;
  const [only, another] = blocks.filter(({ name }) => name.endsWith(`/${region}`));
  return another === undefined ? only : undefined;
}

/** The range that a guest physical address lies in, or undefined where there is no RAM. */
export function findGpaRange(map: readonly GpaRange[], gpa: number): GpaRange | undefined {
  let low = 0;
  let high = map.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (map[middle]!.gpaStart <= gpa) low = middle + 1;
    else high = middle;
  }
  const range = map[low - 1];
  return range !== undefined && gpa - range.gpaStart < range.lengthBytes ? range : undefined;
}
