/**
 * The debian guest: Debian 12 with systemd, qemu-guest-agent, PostgreSQL and nginx, on disks as production has them. It
 * is built once and kept in the cache, where it depends on its recipe alone: Debian's updates do not change it.
 */
import { createHash } from 'node:crypto';
import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { assetPath } from '../../assets.js';
import { cached } from '../../cache.js';
import { debianGuestPrograms, requirePrograms } from '../../programs.js';
import type { GuestDisk } from '../arguments.js';
import { buildLabTools, tools } from '../labTools.js';
import type { TinyGuestImage } from '../tinyGuest.js';
import { buildServedDisk, buildSystemDisk } from './disks.js';
import { filesAfter, filesBefore, finish, layout, packages } from './recipe.js';
import { buildTree } from './tree.js';

/** What QEMU boots; the disks are templates, to be copied for each guest. */
export interface DebianGuestImage extends TinyGuestImage {
  disks: GuestDisk[];
}

/** Builds the guest, or takes it from the cache. The first time takes minutes, and needs Debian's mirror. */
export async function buildDebianGuest(options: { signal?: AbortSignal } = {}): Promise<DebianGuestImage> {
  const { signal } = options;
  const scripts = assetPath('lab/guest/root/bin');
  const programs = new Map([
    ['labtools', await buildLabTools(signal)],
    ...(await readdir(scripts)).sort().map((name) => [name, join(scripts, name)] as const),
  ]);
  const recipe = JSON.stringify([layout, packages, filesBefore, filesAfter, finish]);
  const hash = createHash('sha256').update(recipe);
  for (const [name, path] of programs) hash.update(`\0${name}\0`).update(await readFile(path));
  const build = async (directory: string): Promise<void> => {
    requirePrograms(debianGuestPrograms);
    const root = await buildTree(directory, programs, { labtools: tools }, signal);
    await takeKernel(join(root, 'boot'), directory);
    await buildSystemDisk(directory, root, signal);
    await buildServedDisk(directory, signal);
    for (const name of ['root', 'before', 'after']) await rm(join(directory, name), { recursive: true });
  };
  const directory = await cached(`debian-guest-${hash.digest('hex').slice(0, 16)}`, build, signal);
  return {
    kernel: join(directory, 'vmlinuz'),
    initrd: join(directory, 'initrd'),
    append: 'root=/dev/mapper/debian-root rw console=ttyS0 quiet panic=-1 net.ifnames=0',
    disks: ['system', 'srv'].map((id) => ({ id, path: join(directory, `${id}.img`) })),
  };
}

/** Unpacked: that costs an emulated processor more than the bytes do. */
async function takeKernel(boot: string, directory: string): Promise<void> {
  const names = await readdir(boot);
  const find = (prefix: string) => join(boot, names.find((name) => name.startsWith(prefix))!);
  await copyFile(find('vmlinuz-'), join(directory, 'vmlinuz'));
  await writeFile(join(directory, 'initrd'), gunzipSync(await readFile(find('initrd.img-'))));
}
