/** What is going to be done, worked out from the running guest and the inventory before anything is changed. */
import { type DiskImage, isReadableFormat } from '../disk/index.js';
import { diskPathOn, type InventoryHost } from '../hosts/index.js';
import {
  type BlockDevice,
  type DestinationPlan,
  deriveCommandLine,
  type GuestInspection,
} from '../hypervisor/index.js';
import type { Guest } from './locate.js';

export interface Plan {
  /** Null for a domain: there it is libvirt that knows how to start it. */
  readonly destination: DestinationPlan | null;
  readonly memoryBytes: number;
  /** All that the destination must have. */
  readonly disks: DestinationPlan['disks'];
  /** For each of `disks`: the same on either host. */
  readonly images: readonly ImagePair[];
  /** The disks that pages can be restored from: what the destination's relay opens. */
  readonly restorable: readonly DiskImage[];
  /** For each of the inspection's disks: its index in `restorable`, or -1. */
  readonly restorableIndexes: readonly number[];
}

/** The guest's disk as each host finds it. */
export interface ImagePair {
  readonly here: DiskImage;
  readonly there: DiskImage;
  readonly device: BlockDevice;
}

/** Whether what the guest reads can be read in the image. */
export function isRestorable({ there, device }: ImagePair): boolean {
  return there.keyFile !== undefined || (isReadableFormat(there.format) && !device.isEncrypted);
}

/**
 * @param from - the host that the guest is on
 * @param renamed - images that a domain has under another path on the destination
 */
export function makePlan(
  inspection: GuestInspection,
  guest: Guest,
  from: string,
  to: InventoryHost,
  renamed: ReadonlyMap<string, string> = new Map(),
): Plan {
  const disks = inspection.disks.map((disk) => {
    const known = guest.disks[disk.driveId ?? ''] ?? guest.disks[disk.nodeName ?? ''];
    const atSource = disk.imagePath ?? disk.imageUri;
    const path = known === undefined ? (renamed.get(atSource ?? '') ?? atSource) : diskPathOn(known, to.name);
    if (path === null || disk.removable) return null;
    const { isEncrypted, sizeBytes, imageInode: sourceInode } = disk;
    const image = { format: disk.format ?? 'raw', keyFile: known?.keyFile };
    const here = disk.imagePath ?? (known === undefined ? path : diskPathOn(known, from));
    return {
      planned: { path, sizeBytes, sourceInode, isEncrypted, ...image },
      pair: { here: { path: here, ...image }, there: { path, ...image }, device: disk },
    };
  });
  const found = disks.filter((disk) => disk !== null);
  const restorable = found.filter(({ pair }) => isRestorable(pair));
  return {
    destination: guest.isDomain
      ? null
      : destinationPlan(
          inspection,
          guest,
          to,
          found.map(({ planned }) => planned),
        ),
    memoryBytes: inspection.memory.totalBytes,
    disks: found.map(({ planned }) => planned),
    images: found.map(({ pair }) => pair),
    restorable: restorable.map(({ pair }) => pair.there),
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
    cpuFeatures: inspection.cpuFeatures,
    sourceVersion: inspection.qemuVersion,
    ramBlocks: inspection.memory.blocks,
    disks,
    qmpPath: guest.qmp,
    runDirectory: to.runDir,
    stateDirectory: to.stateDir,
  };
}
