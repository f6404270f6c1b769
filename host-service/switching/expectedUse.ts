/** What a guest, and QEMU for it, will look at first when it goes on elsewhere: asked of a QEMU in which it runs. */
import {
  cpuStates,
  type GuestInspection,
  loadWorkingSet,
  PhysicalMemory,
  type QmpMonitor,
} from '../../hypervisor/index.js';
import { cpuWorkingSet, type WorkingSet } from './cpuWorkingSet.js';

const nothing: WorkingSet = { now: [], soon: [] };

/** Nothing where that cannot be found out: it costs the guest some waiting. */
export async function expectedUse(
  qmp: QmpMonitor,
  { process, memory: { gpaMap } }: GuestInspection,
  signal?: AbortSignal,
): Promise<WorkingSet> {
  using memory = await PhysicalMemory.open(qmp, process, gpaMap, signal).catch(() => null);
  const processors = memory === null ? null : cpuStates(qmp, signal).then((cpus) => cpuWorkingSet(cpus, memory));
  const [read, { now, soon }] = await Promise.all([
    loadWorkingSet(qmp, gpaMap, memory, signal).catch(() => []),
    processors?.catch(() => nothing) ?? nothing,
  ]);
  return { now: [...read, ...now], soon };
}
