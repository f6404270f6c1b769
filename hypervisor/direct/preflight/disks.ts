/** Whether the destination has the guest's disks, and can read them to restore pages from. */
import { stat } from 'node:fs/promises';
import { type DiskError, isReadableFormat, openDisk } from '../../../disk/index.js';
import type { Finding } from '../../finding.js';
import type { DestinationDisk } from './plan.js';

/** QEMU rounds a raw image up to whole sectors. */
const SECTOR_BYTES = 512;

export async function checkDisk(disk: DestinationDisk): Promise<Finding[]> {
  const { path, sourceInode } = disk;
  // What is no path is reached over the network, by both hosts alike.
  if (!path.startsWith('/')) return await checkContent(disk, 'warn');
  const file = await stat(path).catch(() => null);
  if (file === null)
    return [found('refuse', `the disk image ${path} does not exist`, 'share or replicate it to this host')];
  const findings = await checkContent(disk, 'refuse');
  if (findings.some(({ severity }) => severity === 'refuse')) return findings;
  if (!file.isFile() || sourceInode === null || sourceInode === file.ino) return findings;
  const message = `${path} is not the same file as on the source: the guest is lost if it is not an exact, live replica`;
  return [...findings, found('warn', message, 'make sure that the storage is shared or replicated')];
}

/** @param severity - of an image that cannot be opened */
async function checkContent(
  { path, format, sizeBytes, isEncrypted, keyFile }: DestinationDisk,
  severity: Finding['severity'],
): Promise<Finding[]> {
  // Of others is known, and said elsewhere, that their page cache is sent.
  if (keyFile === undefined && (!isReadableFormat(format) || isEncrypted)) return [];
  try {
    await using disk = await openDisk({ path, format, keyFile }, { direct: format === 'raw' ? false : 'auto' });
    const lengthBytes = Math.ceil(disk.lengthBytes / SECTOR_BYTES) * SECTOR_BYTES;
    if (lengthBytes === sizeBytes) return [];
    const message = `the disk image ${path} has ${lengthBytes} bytes here and ${sizeBytes} on the source`;
    return [found('refuse', message, 'it is another image: share or replicate the right one')];
  } catch (error) {
    const { code, message } = error as DiskError;
    const sent = `the page cache of ${path} will be sent over the network: ${message}`;
    if (code === 'VMMIG_DISK_QEMU_NBD')
      return [found('warn', sent, 'install qemu-nbd on this host (qemu-utils; Fedora, RHEL: qemu-img)')];
    if (code === 'VMMIG_DISK_OPEN' && severity === 'refuse') return [found(severity, message, 'give access to it')];
    return [found('warn', sent, 'see that qemu-nbd can open it on this host')];
  }
}

function found(severity: Finding['severity'], message: string, remedy: string): Finding {
  return { severity, code: 'VMMIG_DISK_IMAGE', message, remedy };
}
