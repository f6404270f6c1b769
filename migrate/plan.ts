/** What is going to be done, worked out from the running guest and the inventory before anything is changed. */
import type { InventoryGuest, InventoryHost } from '../hosts/index.js';
import { deriveDestinationArgv, type Finding, type GuestInspection } from '../hypervisor/index.js';

export interface PlannedDisk {
  /** On the destination. */
  readonly path: string;
  readonly format: string;
  readonly sizeBytes: number;
}

export interface Plan {
  /** How to start QEMU on the destination. */
  readonly argv: string[];
  readonly qmpPath: string;
  readonly machineType: string;
  readonly memoryBytes: number;
  readonly disks: PlannedDisk[];
  /** For each of the inspection's disks: its index in `disks`, or -1 when the destination cannot read it. */
  readonly diskIndexes: readonly number[];
  /** What speaks against the command line. */
  readonly findings: readonly Finding[];
}

export function makePlan(inspection: GuestInspection, guest: InventoryGuest, to: InventoryHost): Plan {
  const { destination } = guest;
  const derived = deriveDestinationArgv(inspection, {
    ...(to.qemu === undefined ? {} : { binary: to.qemu }),
    ...(destination.argv === undefined ? {} : { argv: destination.argv }),
    replace: destination.replace,
    options: destination.options,
  });
  const disks: PlannedDisk[] = [];
  const diskIndexes = inspection.disks.map((disk) => {
    const known = guest.disks[disk.driveId ?? ''] ?? guest.disks[disk.nodeName ?? ''];
    const path = known === undefined ? disk.imagePath : (known.paths[to.name] ?? known.path);
    if (path === null || disk.removable) return -1;
    return disks.push({ path, format: disk.format ?? 'raw', sizeBytes: disk.sizeBytes }) - 1;
  });
  return {
    argv: derived.argv,
    qmpPath: guest.qmp,
    machineType: inspection.machineType,
    memoryBytes: inspection.memory.totalBytes,
    disks,
    diskIndexes,
    findings: derived.findings,
  };
}
