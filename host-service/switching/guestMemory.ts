/** Opens the files that a guest's memory is kept in, where it is: then QEMU need not copy it anywhere. */
import { type GuestInspection, isInFiles, memoryBackends, type RamStretch } from '../../hypervisor/index.js';
import { MemoryFile } from '../../pager/index.js';
import type { QmpClient } from '../../qmp/index.js';
import type { GuestBlock, GuestMemory, PageRange } from '../../relay/source/filePages.js';

/** Held by the destination for as long as it may be of use. */
export const hintLimitBytes = 256 * 2 ** 20;
const pageBytes = 4096;

export interface OpenMemory extends GuestMemory, AsyncDisposable {}

/**
 * QEMU's process has to be running, and this user's to look at.
 * @returns null when the guest's memory has to come through QEMU's stream; also when a file cannot be opened
 */
export async function openGuestMemory(qmp: QmpClient, process: GuestInspection['process']): Promise<OpenMemory | null> {
  const files: MemoryFile[] = [];
  const dispose = async () => {
    for (const file of files.splice(0)) await file[Symbol.asyncDispose]();
  };
  try {
    const backends = await memoryBackends(qmp, process);
    if (!isInFiles(backends)) return null;
    const blocks: GuestBlock[] = [];
    for (const { block, lengthBytes, leftOut, path, fileOffset } of backends) {
      if (leftOut) files.push(await MemoryFile.open(path!));
      blocks.push({ name: block, lengthBytes, place: leftOut ? { file: files.at(-1)!, fileOffset } : null });
    }
    return { blocks, hintLimitBytes, [Symbol.asyncDispose]: dispose };
  } catch {
    await dispose();
    return null;
  }
}

/** The pages of stretches, each once; blocks by their places, as far as they are in files. */
export function pagesOf(stretches: readonly RamStretch[], { blocks }: GuestMemory): PageRange[] {
  const places = new Map(blocks.flatMap(({ name, place }, at) => (place === null ? [] : [[name, at]])));
  const ranges = stretches
    .flatMap(({ block, offset, lengthBytes }) => {
      const page = Math.floor(offset / pageBytes);
      const place = places.get(block);
      return place === undefined ? [] : [{ block: place, page, end: Math.ceil((offset + lengthBytes) / pageBytes) }];
    })
    .toSorted((left, right) => left.block - right.block || left.page - right.page);
  const merged: { block: number; page: number; end: number }[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && last.block === range.block && range.page <= last.end)
      last.end = Math.max(last.end, range.end);
    else merged.push({ ...range });
  }
  return merged.map(({ block, page, end }) => ({ block, page, count: end - page }));
}
