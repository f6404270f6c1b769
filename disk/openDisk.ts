import type { DiskReader, OpenDiskOptions } from './diskReader.js';
import { DiskError } from './errors.js';
import { type DiskImage, isPath, isServedFormat } from './nbd/image.js';
import { openNbdDisk } from './nbd/nbdDisk.js';
import { openRawDisk } from './rawDisk.js';

/** Whether `openDisk` can read images of this format (QEMU's name for it), given that qemu-nbd is installed. */
export function isReadableFormat(format: string): boolean {
  return format === 'raw' || isServedFormat(format);
}

/**
 * Opens a disk image; what is read are the guest's offsets, whatever the format.
 * @throws DiskError VMMIG_DISK_FORMAT, VMMIG_DISK_OPEN; and, where it takes qemu-nbd and not `lazy`, VMMIG_DISK_QEMU_NBD,
 * VMMIG_DISK_ENCRYPTED, VMMIG_DISK_SERVER
 */
export async function openDisk(image: DiskImage, options?: OpenDiskOptions): Promise<DiskReader> {
  const isReadable = isReadableFormat(image.format) || image.keyFile !== undefined;
  if (!isReadable)
    throw new DiskError('VMMIG_DISK_FORMAT', `${image.path}: cannot read disk images of format ${image.format}`);
  const isPlain = image.format === 'raw' && isPath(image.path);
  return isPlain ? await openRawDisk(image.path, options) : await openNbdDisk(image, options);
}
