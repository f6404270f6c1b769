/** Opens the files that a guest's memory is kept in, where it is: then QEMU need not copy it anywhere. */
import { type GuestInspection, isInFiles, memoryBackends, type QmpMonitor } from '../../hypervisor/index.js';
import { MemoryFile } from '../../pager/index.js';
import type { GuestMemory } from '../../relay/source/filePages.js';
import type { GuestBlock } from '../../relay/source/guestBlock.js';

/** Held by the destination for as long as it may be of use. */
export const hintLimitBytes = 256 * 2 ** 20;

export interface OpenMemory extends GuestMemory, AsyncDisposable {}

/**
 * QEMU's process has to be running, and this user's to look at.
 * @returns null when the guest's memory has to come through QEMU's stream; also when a file cannot be opened
 */
export async function openGuestMemory(
  qmp: QmpMonitor,
  inspection: Pick<GuestInspection, 'process' | 'memory' | 'qemuVersion'>,
): Promise<OpenMemory | null> {
  const files: MemoryFile[] = [];
  const dispose = async () => {
    for (const file of files.splice(0)) await file[Symbol.asyncDispose]();
  };
  try {
    const backends = await memoryBackends(qmp, inspection.process, { known: inspection });
    if (!isInFiles(backends)) return null;
    const blocks: GuestBlock<MemoryFile>[] = [];
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
