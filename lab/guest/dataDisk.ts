/** Data disks for the tiny guest: ext4 on a raw, sparse image, holding files and a list of their SHA-256 sums. */
import { createCipheriv, createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cached } from '../cache.js';

export interface DataDiskOptions {
  /** `random` does not compress; `real` is a sample of this machine's /usr/lib; `empty` has no files. */
  contents: 'random' | 'real' | 'empty';
  /** How much the files hold. Default 400. */
  filesMiB?: number;
  /** Room for more. Default 512; unused room costs nothing. */
  freeMiB?: number;
  signal?: AbortSignal;
}

const mebibyte = 1024 * 1024;

/**
 * Writes a disk image to `path`: files in /files, their sums in /SHA256SUMS (what the guest's `checksum` reads). The
 * image is made once and copied, without its holes, for each guest.
 */
export async function createDataDisk(path: string, options: DataDiskOptions): Promise<void> {
  const filesMiB = options.contents === 'empty' ? 0 : (options.filesMiB ?? 400);
  const freeMiB = options.freeMiB ?? 512;
  const name = `data-disk-${options.contents}-${filesMiB}-${freeMiB}`;
  const build = (directory: string) => buildImage(directory, options.contents, filesMiB, freeMiB, options.signal);
  const template = join(await cached(name, build, options.signal), 'disk.img');
  await execa('cp', ['--reflink=auto', '--sparse=always', template, path], cancel(options.signal));
}

async function buildImage(
  directory: string,
  contents: DataDiskOptions['contents'],
  filesMiB: number,
  freeMiB: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const tree = join(directory, 'tree');
  await mkdir(join(tree, 'files'), { recursive: true });
  const sums = await (contents === 'real' ? copyRealFiles : writeRandom)(tree, filesMiB, signal);
  await writeFile(join(tree, 'SHA256SUMS'), sums.join(''));
  const image = join(directory, 'disk.img');
  // Metadata is initialised now, so that the guest's kernel does not write it in the background later.
  const initialise = 'lazy_itable_init=0,lazy_journal_init=0';
  const sizeMiB = Math.ceil(filesMiB * 1.1) + freeMiB + 64;
  const size = `${sizeMiB}M`;
  await execa('mke2fs', ['-q', '-t', 'ext4', '-m', '0', '-E', initialise, '-d', tree, image, size], cancel(signal));
  await rm(tree, { recursive: true });
}

/** Files of 8 MiB of a fixed pseudo-random stream, in `tree`/files. Returns the lines for SHA256SUMS. */
export async function writeRandom(tree: string, filesMiB: number, signal?: AbortSignal): Promise<string[]> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16));
  const zeros = Buffer.alloc(mebibyte);
  const sums: string[] = [];
  for (let written = 0; written < filesMiB; ) {
    signal?.throwIfAborted();
    const name = `files/random-${String(sums.length).padStart(3, '0')}`;
    const hash = createHash('sha256');
    await using file = await open(join(tree, name), 'w');
    for (let i = 0; i < 8 && written < filesMiB; i++, written++) {
      const block = cipher.update(zeros);
      hash.update(block);
      await file.write(block);
    }
    sums.push(`${hash.digest('hex')}  ${name}\n`);
  }
  return sums;
}

/** The same with regular files from /usr/lib in the order of their names, as many as fit, each under a number of its own. */
export async function copyRealFiles(tree: string, filesMiB: number, signal?: AbortSignal): Promise<string[]> {
  const found = await readdir('/usr/lib', { recursive: true, withFileTypes: true });
  const paths = found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  let left = filesMiB * mebibyte;
  const sums: string[] = [];
  for (const path of paths.sort()) {
    signal?.throwIfAborted();
    const { size } = await stat(path);
    if (size < 4096 || size > left) continue;
    left -= size;
    const name = `files/real-${String(sums.length).padStart(5, '0')}`;
    const bytes = await readFile(path);
    await writeFile(join(tree, name), bytes);
    sums.push(`${createHash('sha256').update(bytes).digest('hex')}  ${name}\n`);
    if (left < mebibyte) break;
  }
  return sums;
}

function cancel(signal: AbortSignal | undefined): { cancelSignal?: AbortSignal } {
  return signal ? { cancelSignal: signal } : {};
}
