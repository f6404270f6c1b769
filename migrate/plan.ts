/** What is going to be done, worked out from the running guest and the inventory before anything is changed. */
import { isReadableFormat } from '../disk/index.js';
import { diskPathOn, type InventoryGuest, type InventoryHost } from '../hosts/index.js';
import { type DestinationPlan, deriveCommandLine, type GuestInspection } from '../hypervisor/index.js';

export interface Plan {
  readonly destination: DestinationPlan;
  readonly memoryBytes: number;
  /** The disks that pages can be restored from: what the destination's relay opens. */
  readonly restorable: readonly { readonly path: string; readonly format: string; readonly sizeBytes: number }[];
  /** For each of the inspection's disks: its index in `restorable`, or -1. */
  readonly restorableIndexes: readonly number[];
}

export function makePlan(inspection: GuestInspection, guest: InventoryGuest, to: InventoryHost): Plan {
  const { argv, options, replace } = guest.destination;
  const commandLine = deriveCommandLine(
    { ...inspection.process, machineType: inspection.machineType },
    { binary: to.qemu, argv, replacements: Object.entries(replace), extra: options },
  );
  const disks = inspection.disks.map((disk) => {
    const known = guest.disks[disk.driveId ?? ''] ?? guest.disks[disk.nodeName ?? ''];
    const path = known === undefined ? disk.imagePath : diskPathOn(known, to.name);
    if (path === null || disk.removable) return null;
    return { path, format: disk.format ?? 'raw', sizeBytes: disk.sizeBytes, sourceInode: disk.imageInode };
  });
  const planned = disks.filter((disk) => disk !== null);
  const restorable = planned.filter(({ format }) => isReadableFormat(format));
  return {
    destination: {
      commandLine,
      machineType: inspection.machineType,
      accelerator: inspection.accelerator,
      sourceVersion: inspection.qemuVersion,
      ramBlocks: inspection.memory.blocks,
      disks: planned,
      qmpPath: guest.qmp,
      runDirectory: to.runDir,
    },
    memoryBytes: inspection.memory.totalBytes,
    restorable,
    restorableIndexes: disks.map((disk) => (disk === null ? -1 : restorable.indexOf(disk))),
  };
}
