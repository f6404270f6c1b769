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
/** Of each device. One with serial ports has 64, and Linux sets all of them up; each has to be asked for. */
const maxQueues = 64;
const hasNext = 1;

type Memory = Pick<PhysicalMemory, 'read'>;

interface GpaStretch {
  readonly start: number;
  readonly lengthBytes: number;
}

export type VirtioQueue = ReturnOf<'x-query-virtio-queue-status'>;

/** Where the queues of the guest's devices are: drivers may set up others. None where QEMU does not tell. */
export async function virtioQueues(qmp: QmpMonitor, signal?: AbortSignal): Promise<readonly VirtioQueue[]> {
  try {
    const devices = await qmp.execute('x-query-virtio', {}, { signal });
    const queues = await Promise.all(devices.map(({ path }) => queuesOf(qmp, path, signal)));
    return queues.flat();
  } catch (error) {
    if (error instanceof QmpCommandError) return [];
    throw error;
  }
}

/** As it is now. @param memory - null: nothing but the rings is known then */
export function loadWorkingSet(
  queues: readonly VirtioQueue[],
  gpaMap: readonly GpaRange[],
  memory: Memory | null,
): readonly RamStretch[] {
  const rings = queues.flatMap(ringsOf);
  const buffers = memory === null ? [] : queues.flatMap((queue) => nextBuffers(queue, memory));
  const stretches = [...rings, ...buffers].flatMap(({ start, lengthBytes }) => {
    const range = findGpaRange(gpaMap, start);
    if (range === undefined || lengthBytes > range.gpaStart + range.lengthBytes - start) return [];
    return [{ block: range.block, offset: range.blockOffset + start - range.gpaStart, lengthBytes }];
  });
  const low = findGpaRange(gpaMap, 0);
  if (low === undefined) return stretches;
  // What is write-protected is not in the map, but in the same block.
  const { start, lengthBytes } = optionRoms;
  return [{ block: low.block, offset: low.blockOffset + start, lengthBytes }, ...stretches];
}

async function queuesOf(qmp: QmpMonitor, path: string, signal?: AbortSignal): Promise<VirtioQueue[]> {
  const { 'num-vqs': count } = await qmp.execute('x-query-virtio-status', { path }, { signal });
  const queues = await Promise.all(
    Array.from({ length: Math.min(count, maxQueues) }, (_, queue) =>
      qmp.execute('x-query-virtio-queue-status', { path, queue }, { signal }),
    ),
  );
  return queues.filter((queue) => queue['vring-desc'] !== 0);
}

function ringsOf(queue: VirtioQueue): GpaStretch[] {
  const size = queue['vring-num'];
  return [
    { start: queue['vring-desc'], lengthBytes: 16 * size },
    { start: queue['vring-avail'], lengthBytes: 6 + 2 * size },
    { start: queue['vring-used'], lengthBytes: 6 + 8 * size },
  ];
}

/** What the device takes next. */
function nextBuffers(queue: VirtioQueue, memory: Memory): GpaStretch[] {
  const size = queue['vring-num'];
  const ring = Buffer.alloc(4 + 2 * size);
  const table = Buffer.alloc(descriptorBytes * size);
  const used = Buffer.alloc(4);
  const parts = [
    [queue['vring-avail'], ring],
    [queue['vring-desc'], table],
    [queue['vring-used'], used],
  ] as const;
  if (!parts.every(([gpa, into]) => memory.read(gpa, into))) return [];
  const found: GpaStretch[] = [];
  const first = used.readUInt16LE(2);
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
