/**
 * Where in the guest's memory its virtio devices have their rings: what QEMU reads when it loads their state. QEMU tells
 * from 7.2 on (`x-query-virtio…`, unstable by name), and the rest is in docs.oasis-open.org/virtio, "Split Virtqueues".
 */
import { type QmpClient, QmpCommandError } from '../qmp/index.js';
import { findGpaRange, type GpaRange } from './gpaMap.js';

/** A stretch of a RAM block, in bytes. */
export interface RamStretch {
  readonly block: string;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Of the queues that the guest's drivers have set up, as they are now; none where QEMU cannot tell. */
export async function virtioRings(
  qmp: QmpClient,
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

async function queuesOf(qmp: QmpClient, path: string, signal?: AbortSignal) {
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
