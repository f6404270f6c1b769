/**
 * What QEMU reads of the guest's memory while it loads the state of the devices, and the guest stands still:
 *
 * - the rings of virtio devices. QEMU tells where they are from 7.2 on (`x-query-virtio…`, unstable by name); how long
 *   they are is in docs.oasis-open.org/virtio, "Split Virtqueues"
 * - on a PC, the option ROMs, among which it looks for its own
 */
import { QmpCommandError } from '../qmp/index.js';
import { findGpaRange, type GpaRange } from './gpaMap.js';
import type { QmpMonitor } from './qmpMonitor.js';

/** A stretch of a RAM block, in bytes. */
export interface RamStretch {
  readonly block: string;
  readonly offset: number;
  readonly lengthBytes: number;
}

const optionRoms = { start: 0xc0000, lengthBytes: 0x20000 } as const;

/** As it is now: drivers may set up other queues. */
export async function loadWorkingSet(
  qmp: QmpMonitor,
  gpaMap: readonly GpaRange[],
  signal?: AbortSignal,
): Promise<readonly RamStretch[]> {
  const rings = await virtioRings(qmp, gpaMap, signal);
  const low = findGpaRange(gpaMap, 0);
  if (low === undefined) return rings;
  // What is write-protected is not in the map, but in the same block.
  const { start, lengthBytes } = optionRoms;
  return [{ block: low.block, offset: low.blockOffset + start, lengthBytes }, ...rings];
}

async function virtioRings(
  qmp: QmpMonitor,
  gpaMap: readonly GpaRange[],
  signal?: AbortSignal,
): Promise<readonly RamStretch[]> {
  try {
    const devices = await qmp.execute('x-query-virtio', {}, { signal });
    const queues = await Promise.all(devices.map(({ path }) => queuesOf(qmp, path, signal)));
    return queues.flat().flatMap(({ start, lengthBytes }) => {
      const range = findGpaRange(gpaMap, start);
      if (range === undefined || lengthBytes > range.gpaStart + range.lengthBytes - start) return [];
      return [{ block: range.block, offset: range.blockOffset + start - range.gpaStart, lengthBytes }];
    });
  } catch (error) {
    if (error instanceof QmpCommandError) return [];
    throw error;
  }
}

async function queuesOf(qmp: QmpMonitor, path: string, signal?: AbortSignal) {
  const { 'num-vqs': count } = await qmp.execute('x-query-virtio-status', { path }, { signal });
  const queues = await Promise.all(
    Array.from({ length: count }, (_, queue) =>
      qmp.execute('x-query-virtio-queue-status', { path, queue }, { signal }),
    ),
  );
  return queues
    .filter((queue) => queue['vring-desc'] !== 0)
    .flatMap((queue) => [
      { start: queue['vring-desc'], lengthBytes: 16 * queue['vring-num'] },
      { start: queue['vring-avail'], lengthBytes: 6 + 2 * queue['vring-num'] },
      { start: queue['vring-used'], lengthBytes: 6 + 8 * queue['vring-num'] },
    ]);
}
