/**
 * What QEMU reads of the guest's memory while it loads the state of the devices and starts them, and the guest stands
 * still:
 *
 * - the rings of virtio devices. QEMU tells where they are from 7.2 on (`x-query-virtio…`, unstable by name); what they
 *   look like is in docs.oasis-open.org/virtio, "Split Virtqueues"
 * - the first of the buffers that the guest has put into them: some devices fill them as soon as they are started
 * - on a PC, the option ROMs, among which it looks for its own
 */
import { QmpCommandError, type ReturnOf } from '../qmp/index.js';
import { findGpaRange, type GpaRange } from './gpaMap.js';
import type { PhysicalMemory } from './physicalMemory.js';
import type { QmpMonitor } from './qmpMonitor.js';
import type { RamStretch } from './ramStretch.js';

const optionRoms = { start: 0xc0000, lengthBytes: 0x20000 } as const;

/** Of each queue. */
const maxBuffers = 4;
const maxBufferBytes = 16_384;
const descriptorBytes = 16;
const hasNext = 1;

type Memory = Pick<PhysicalMemory, 'read'>;

interface GpaStretch {
  readonly start: number;
  readonly lengthBytes: number;
}

/** As it is now: drivers may set up other queues. @param memory - null: nothing but the rings is known then */
export async function loadWorkingSet(
  qmp: QmpMonitor,
  gpaMap: readonly GpaRange[],
  memory: Memory | null,
  signal?: AbortSignal,
): Promise<readonly RamStretch[]> {
  const rings = await virtioQueues(qmp, gpaMap, memory, signal);
  const low = findGpaRange(gpaMap, 0);
  if (low === undefined) return rings;
  // What is write-protected is not in the map, but in the same block.
  const { start, lengthBytes } = optionRoms;
  return [{ block: low.block, offset: low.blockOffset + start, lengthBytes }, ...rings];
}

async function virtioQueues(
  qmp: QmpMonitor,
  gpaMap: readonly GpaRange[],
  memory: Memory | null,
  signal?: AbortSignal,
): Promise<readonly RamStretch[]> {
  try {
    const devices = await qmp.execute('x-query-virtio', {}, { signal });
    const queues = await Promise.all(devices.map(({ path }) => queuesOf(qmp, path, memory, signal)));
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

async function queuesOf(
  qmp: QmpMonitor,
  path: string,
  memory: Memory | null,
  signal?: AbortSignal,
): Promise<GpaStretch[]> {
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
      ...(memory === null ? [] : nextBuffers(queue, memory)),
    ]);
}

/** What the device takes next. */
function nextBuffers(queue: ReturnOf<'x-query-virtio-queue-status'>, memory: Memory): GpaStretch[] {
  const size = queue['vring-num'];
  const ring = Buffer.alloc(4 + 2 * size);
  const table = Buffer.alloc(descriptorBytes * size);
  if (!memory.read(queue['vring-avail'], ring) || !memory.read(queue['vring-desc'], table)) return [];
  const found: GpaStretch[] = [];
  const first = queue['last-avail-idx'] ?? queue['used-idx'];
  const count = Math.min(maxBuffers, (ring.readUInt16LE(2) - first + 0x1_0000) % 0x1_0000);
  for (let at = first; at < first + count; at++) {
    let head: number | null = ring.readUInt16LE(4 + 2 * (at % size));
    for (let length = 0; head !== null && head < size && length < maxBuffers; length++) {
      const descriptor = table.subarray(descriptorBytes * head, descriptorBytes * (head + 1));
      const lengthBytes = Math.min(descriptor.readUInt32LE(8), maxBufferBytes);
      if (lengthBytes > 0) found.push({ start: Number(descriptor.readBigUInt64LE(0)), lengthBytes });
      head = (descriptor.readUInt16LE(12) & hasNext) === 0 ? null : descriptor.readUInt16LE(14);
    }
  }
  return found;
}
