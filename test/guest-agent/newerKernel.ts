/**
 * The tiny guest with Linux 6.12 from Debian's backports in place of its own kernel: for what the agent can do only
 * there. The kernel has all it needs to boot; its disk driver is added to the initramfs as one more archive.
 */
import { appendFile, copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { cached } from '../../lab/cache.js';
import { buildTinyGuest, type TinyGuestImage } from '../../lab/guest/tinyGuest.js';
import { PackageSource } from '../../lab/packages.js';

const META_PACKAGE = 'linux-image-cloud-amd64';

async function unpackKernel(directory: string): Promise<void> {
  const apt = join(directory, 'apt');
  const source = await PackageSource.open(apt, { backports: true });
  await source.unpack([META_PACKAGE], join(apt, 'meta'), `${source.codename}-backports`);
  const archives = join(apt, 'archives');
  const meta = (await readdir(archives)).find((name) => name.startsWith(META_PACKAGE))!;
  const { stdout } = await execa('dpkg-deb', ['-f', join(archives, meta), 'Depends']);
  const root = join(directory, 'root');
  await source.unpack([/linux-image-\S+/.exec(stdout)![0]], root, `${source.codename}-backports`);
  const boot = await readdir(join(root, 'boot'));
  await copyFile(join(root, 'boot', boot.find((name) => name.startsWith('vmlinuz'))!), join(directory, 'vmlinuz'));
  // Named so that it is loaded after those of the other kernel, which this one refuses.
  await mkdir(join(directory, 'tree', 'modules'), { recursive: true });
  const files = await readdir(root, { recursive: true });
  const driver = files.find((name) => basename(name).startsWith('virtio_blk.ko'))!;
  const module = join(directory, 'tree', 'modules', 'zz-virtio_blk.ko');
  if (driver.endsWith('.xz')) {
    const { stdout: bytes } = await execa('xz', ['-dc', join(root, driver)], { encoding: 'buffer' });
    await writeFile(module, bytes);
  } else {
    await copyFile(join(root, driver), module);
  }
  const pack = 'cd "$1" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet >"$2"';
  await execa('sh', ['-c', pack, 'pack', join(directory, 'tree'), join(directory, 'modules.cpio')]);
  await execa('rm', ['-rf', apt, root, join(directory, 'tree')]);
}

/** Builds the guest with the newer kernel; its initramfs is written to `directory`. */
export async function buildNewerGuest(directory: string, agentPath: string): Promise<TinyGuestImage> {
  const kernel = await cached('guest-kernel-backports', unpackKernel);
  const image = await buildTinyGuest({ agentPath });
  const initrd = join(directory, 'initrd');
  await copyFile(image.initrd, initrd);
  await execa('truncate', ['-s', '%512', initrd]);
  await appendFile(initrd, (await execa('cat', [join(kernel, 'modules.cpio')], { encoding: 'buffer' })).stdout);
  return { ...image, kernel: join(kernel, 'vmlinuz'), initrd };
}
