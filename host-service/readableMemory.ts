/** A guest's memory as its QEMU's process has it, for sending some of it before QEMU does. */
import { type GuestInspection, hostAddress, type QmpMonitor } from '../hypervisor/index.js';
import { ProcessMemory } from '../pager/index.js';
import type { ReadableMemory } from '../relay/source/sentAhead.js';

/** What a slow link takes within the seconds that a host needs to get ready; the destination's relay holds it. */
export const aheadLimitBytes = 48 * 2 ** 20;

export interface OpenReadableMemory extends ReadableMemory, AsyncDisposable {}

/** @throws PagerError, QmpError when it cannot be looked at: then QEMU sends all of it */
export async function openReadableMemory(
  qmp: QmpMonitor,
  { process, memory }: Pick<GuestInspection, 'process' | 'memory'>,
  limitBytes: number,
  signal: AbortSignal,
): Promise<OpenReadableMemory> {
  const named = memory.blocks.filter(({ name }) => name.trim() !== '');
  const offsets = await Promise.all(
    named.map(async ({ name }) => {
      const range = memory.gpaMap.find(({ block }) => block === name);
      const address = range === undefined ? null : await hostAddress(qmp, range.gpaStart, signal);
      return address === null ? null : address - range!.blockOffset;
    }),
  );
  const file = await ProcessMemory.open(process.pid);
  const blocks = named.map(({ name, usedBytes: lengthBytes }, at) => {
    const fileOffset = offsets[at] ?? null;
    return { name, lengthBytes, place: fileOffset === null ? null : { file, fileOffset } };
  });
  return { blocks, limitBytes, [Symbol.asyncDispose]: () => file[Symbol.asyncDispose]() };
}
