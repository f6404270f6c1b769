/** The guest's kernel: Debian's cloud kernel, unpacked from its package, with the modules the tiny guest loads. */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cached } from '../cache.js';
import { LabError } from '../errors.js';
import { PackageSource } from '../packages.js';

export interface GuestKernel {
  /** The bootable image. */
  image: string;
  /** Module files, each after those it depends on. */
  modules: string[];
}

const wanted = ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_balloon', 'dm-mod', 'xfs'];

/** Downloads the kernel the first time; later calls only read the cache. */
export async function guestKernel(signal?: AbortSignal): Promise<GuestKernel> {
  const recipe = createHash('sha256').update(wanted.join()).digest('hex').slice(0, 16);
  const directory = await cached(`guest-kernel-${recipe}`, (into) => unpackKernel(into, signal), signal);
  const names = (await readFile(join(directory, 'order'), 'utf8')).trim().split('\n');
  return { image: join(directory, 'vmlinuz'), modules: names.map((name) => join(directory, 'modules', name)) };
}

async function unpackKernel(directory: string, signal: AbortSignal | undefined): Promise<void> {
  const apt = join(directory, 'apt');
  const source = await PackageSource.open(apt, { backports: false, ...(signal ? { signal } : {}) });
  const image = (await source.dependencies('linux-image-cloud-amd64')).find((name) => name.startsWith('linux-image-'));
  if (image === undefined) throw new LabError('VMMIG_LAB_UNSUPPORTED', 'linux-image-cloud-amd64 depends on no kernel');
  const root = join(apt, 'root');
  await source.unpack([image], root);
  const boot = await readdir(join(root, 'boot'));
  await copyFile(join(root, 'boot', boot.find((name) => name.startsWith('vmlinuz'))!), join(directory, 'vmlinuz'));

  const order = await loadOrder(root);
  await mkdir(join(directory, 'modules'));
  for (const path of order) await copyFile(path, join(directory, 'modules', basename(path)));
  await writeFile(join(directory, 'order'), `${order.map((path) => basename(path)).join('\n')}\n`);
  await rm(apt, { recursive: true, force: true });
}

/** What depmod would say of the wanted modules, read from the `depends=` entry of each module's .modinfo section. */
async function loadOrder(root: string): Promise<string[]> {
  const byName = new Map<string, string>();
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (/\.ko$/.test(entry.name)) byName.set(canonical(entry.name.slice(0, -3)), join(entry.parentPath, entry.name));
  }
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const path = byName.get(canonical(name));
    // Built into the kernel.
    if (path === undefined || order.includes(path)) return;
    const depends = /\0depends=([^\0]*)\0/.exec(await readFile(path, 'latin1'))?.[1] ?? '';
    for (const each of depends.split(',').filter(Boolean)) await visit(each);
    order.push(path);
  };
  for (const name of wanted) await visit(name);
  return order;
}

/** Modules are named with dashes and underscores interchangeably. */
function canonical(name: string): string {
  return name.replaceAll('-', '_');
}
