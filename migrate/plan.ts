/** What is going to be done, worked out from the running guest and the inventory before anything is changed. */
import { isReadableFormat } from '../disk/index.js';
import { diskPathOn, type InventoryHost } from '../hosts/index.js';
import { type DestinationPlan, deriveCommandLine, type GuestInspection } from '../hypervisor/index.js';
import type { Guest } from './locate.js';

export interface Plan {
  /** Null for a domain: there it is libvirt that knows how to start it. */
  readonly destination: DestinationPlan | null;
  readonly memoryBytes: number;
  /** All that the destination must have. */
  readonly disks: DestinationPlan['disks'];
  /** The disks that pages can be restored from: what the destination's relay opens. */
  readonly restorable: readonly { readonly path: string; readonly format: string; readonly sizeBytes: number }[];
  /** For each of the inspection's disks: its index in `restorable`, or -1. */
  readonly restorableIndexes: readonly number[];
}

export function makePlan(inspection: GuestInspection, guest: Guest, to: InventoryHost): Plan {
  const disks = inspection.disks.map((disk) => {
    const known = guest.disks[disk.driveId ?? ''] ?? guest.disks[disk.nodeName ?? ''];
    const path = known === undefined ? (disk.imagePath ?? disk.imageUri) : diskPathOn(known, to.name);
    if (path === null || disk.removable) return null;
    const { isEncrypted, sizeBytes, imageInode: sourceInode } = disk;
    return { path, format: disk.format ?? 'raw', sizeBytes, sourceInode, isEncrypted };
  });
  const planned = disks.filter((disk) => disk !== null);
  const restorable = planned.filter(({ format, isEncrypted }) => isReadableFormat(format) && !isEncrypted);
  return {
    destination: guest.isDomain ? null : destinationPlan(inspection, guest, to, planned),
    memoryBytes: inspection.memory.totalBytes,
    disks: planned,
    restorable,
    restorableIndexes: disks.map((disk) => (disk === null ? -1 : restorable.indexOf(disk))),
  };
}

function destinationPlan(
  inspection: GuestInspection,
  guest: Guest,
  to: InventoryHost,
  disks: DestinationPlan['disks'],
): DestinationPlan {
  const { argv, options, replace } = guest.destination;
  const commandLine = deriveCommandLine(
    { ...inspection.process, machineType: inspection.machineType },
    { binary: to.qemu, argv, replacements: Object.entries(replace), extra: options },
  );
  return {
    commandLine,
    machineType: inspection.machineType,
    accelerator: inspection.accelerator,
    sourceVersion: inspection.qemuVersion,
    ramBlocks: inspection.memory.blocks,
    disks,
    qmpPath: guest.qmp,
    runDirectory: to.runDir,
  };
}
