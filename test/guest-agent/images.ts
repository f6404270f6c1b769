/** Disk images with files of known, incompressible content, laid out the ways a guest's disks are. */
import { randomBytes } from 'node:crypto';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { PageSet } from './pageSet.js';

const MEBIBYTE = 1024 * 1024;

/** Some files, and the pages that they consist of. */
export interface KnownFiles {
  directory: string;
  pages: PageSet;
}

/** Writes `count` files of `sizeKiB` random bytes, in directories of 100. */
export async function writeKnownFiles(directory: string, count: number, sizeKiB: number): Promise<KnownFiles> {
  const pages = new PageSet();
  for (let i = 0; i < count; i++) {
    const parent = join(directory, `group-${Math.floor(i / 100)}`);
    if (i % 100 === 0) await mkdir(parent, { recursive: true });
    const bytes = randomBytes(sizeKiB * 1024);
    pages.addAll(bytes);
    await writeFile(join(parent, `file-${i}`), bytes);
  }
  return { directory, pages };
}

/** An ext4 file system with 4 KiB blocks that holds a copy of `directory`. */
export async function makeExt4(path: string, directory: string, sizeMiB: number): Promise<void> {
  // Metadata is initialised now, so that the guest does not write it in the background.
  const initialise = 'lazy_itable_init=0,lazy_journal_init=0';
  const args = ['-q', '-t', 'ext4', '-b', '4096', '-m', '0', '-E', initialise, '-d', directory, path, `${sizeMiB}M`];
  await execa('mke2fs', args);
}

/** An XFS file system with the files named, from `directory`, in its root. */
export async function makeXfs(path: string, directory: string, names: string[]): Promise<void> {
  const entries = names.map((name) => `${name.replaceAll('/', '-')} ---644 0 0 ${join(directory, name)}`);
  const prototype = `${path}.proto`;
  await writeFile(prototype, ['/dev/null', '0 0', 'd--755 0 0', ...entries, '$', '$', ''].join('\n'));
  await writeFile(path, '');
  await truncate(path, 320 * MEBIBYTE);
  await execa('mkfs.xfs', ['-q', '-p', prototype, path]);
}

/** Copies `lengthBytes` of an image (all, if 0) into another, leaving out what is zero. */
export async function copyInto(
  from: string,
  to: string,
  place: { fromBytes?: number; toBytes: number; lengthBytes?: number },
): Promise<void> {
  const flags = ['iflag=skip_bytes,count_bytes,fullblock', 'oflag=seek_bytes', 'conv=notrunc,sparse', 'bs=64K'];
  const count = place.lengthBytes ? [`count=${place.lengthBytes}`] : [];
  const skip = `skip=${place.fromBytes ?? 0}`;
  await execa('dd', [`if=${from}`, `of=${to}`, skip, `seek=${place.toBytes}`, ...count, ...flags]);
}

export interface Partition {
  startSector: number;
  sectors: number;
}

/** An empty image with a DOS partition table: four entries of type, first sector and length; no CHS addresses. */
export async function makePartitioned(path: string, sizeMiB: number, partitions: Partition[]): Promise<void> {
  const table = Buffer.alloc(512);
  for (const [i, { startSector, sectors }] of partitions.entries()) {
    const at = 446 + i * 16;
    table.writeUInt8(0x83, at + 4);
    table.writeUInt32LE(startSector, at + 8);
    table.writeUInt32LE(sectors, at + 12);
  }
  table.writeUInt16BE(0x55aa, 510);
  await writeFile(path, table);
  await truncate(path, sizeMiB * MEBIBYTE);
}
