import type { DiskReader, OpenDiskOptions } from './diskReader.js';
import { DiskError } from './errors.js';
import { openRawDisk } from './rawDisk.js';

/** Image formats a reader exists for, by QEMU's names for them. */
const readers: Readonly<Record<string, typeof openRawDisk>> = { raw: openRawDisk };

/** Whether `openDisk` can read images of this format. */
export function isReadableFormat(format: string): boolean {
  return Object.hasOwn(readers, format);
}

/**
 * Opens a disk image of the given format (QEMU's name for it, such as `raw`).
 * @throws DiskError VMMIG_DISK_FORMAT, VMMIG_DISK_OPEN
 */
export async function openDisk(
  image: { readonly path: string; readonly format: string },
  options?: OpenDiskOptions,
): Promise<DiskReader> {
  if (!isReadableFormat(image.format)) {
    throw new DiskError('VMMIG_DISK_FORMAT', `${image.path}: cannot read disk images of format ${image.format}`);
  }
  return await readers[image.format]!(image.path, options);
}
