/** What a guest, and QEMU for it, will look at first when it goes on elsewhere: asked of a QEMU in which it runs. */
import {
  cpuStates,
  type GuestInspection,
  loadWorkingSet,
  PhysicalMemory,
  type QmpMonitor,
} from '../../hypervisor/index.js';
import { cpuWorkingSet, type WorkingSet } from './cpuWorkingSet.js';

/** Nothing where that cannot be found out: it costs the guest some waiting. */
export async function expectedUse(
  qmp: QmpMonitor,
  { process, memory: { gpaMap } }: GuestInspection,
  signal?: AbortSignal,
): Promise<WorkingSet> {
  const rings = loadWorkingSet(qmp, gpaMap, signal).catch(() => []);
  const processors = lookAtProcessors(qmp, process.pid, gpaMap, signal).catch(() => ({ now: [], soon: [] }));
  const [read, { now, soon }] = await Promise.all([rings, processors]);
  return { now: [...read, ...now], soon };
}

async function lookAtProcessors(
  qmp: QmpMonitor,
  pid: number,
  gpaMap: GuestInspection['memory']['gpaMap'],
  signal: AbortSignal | undefined,
): Promise<WorkingSet> {
  using memory = await PhysicalMemory.open(qmp, { pid }, gpaMap, signal);
  return cpuWorkingSet(await cpuStates(qmp, signal), memory);
}
