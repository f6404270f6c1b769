/**
 * The tiny guest: Debian's cloud kernel and an initramfs of busybox, the lab's own commands and, when given, the guest
 * agent. It is at a shell in seconds and has no disk of its own; data disks come with the launch.
 */
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { assetPath } from '../assets.js';
import { cached } from '../cache.js';
import { LabError } from '../errors.js';
import { guestKernel } from './kernel.js';
import { buildLabTools, tools } from './labTools.js';

export interface TinyGuestOptions {
  /** A static `vmmig-agent` to run in the guest; null or absent leaves the guest without one. */
  agentPath?: string | null;
  /** More files: path in the guest to path here. Executables in /etc/boot run at the end of the boot. */
  extraFiles?: Record<string, string>;
  /** Leaves mounting the data disks to the caller. */
  mountDisks?: boolean;
  signal?: AbortSignal;
}

/** What `-kernel`, `-initrd` and `-append` take. */
export interface TinyGuestImage {
  kernel: string;
  initrd: string;
  append: string;
}

/** Builds the guest, or takes it from the cache when nothing it is made from has changed. */
export async function buildTinyGuest(options: TinyGuestOptions = {}): Promise<TinyGuestImage> {
  const kernel = await guestKernel(options.signal);
  const busybox = await findBusybox();
  const labTools = await buildLabTools(options.signal);
  const recipe = assetPath('lab/guest/root');
  const files = new Map<string, string>([
    ['init', join(recipe, 'init')],
    ['bin/busybox', busybox],
    ['bin/labtools', labTools],
    ...(await readdir(join(recipe, 'bin'))).sort().map((name) => [`bin/${name}`, join(recipe, 'bin', name)] as const),
    ...kernel.modules.map((path, i) => [`modules/${String(i).padStart(2, '0')}-${basename(path)}`, path] as const),
    ...(options.agentPath ? [['bin/vmmig-agent', options.agentPath] as const] : []),
    ...Object.entries(options.extraFiles ?? {}).map(([to, from]) => [to.replace(/^\/+/, ''), from] as const),
  ]);
  const hash = createHash('sha256').update(kernel.image).update(tools.join());
  for (const [to, from] of files) hash.update(`\0${to}\0`).update(await readFile(from));
  const name = `tiny-guest-${hash.digest('hex').slice(0, 16)}`;
  const directory = await cached(name, (into) => packInitramfs(into, files, options.signal), options.signal);
  return {
    kernel: kernel.image,
    initrd: join(directory, 'initrd'),
    // A guest that panics stops at once, so that a test sees it end instead of waiting. The kernel's tests of its own
    // ciphers take an emulated processor a quarter of its boot.
    append: `console=ttyS0 quiet panic=-1 cryptomgr.notests${options.mountDisks === false ? ' lab.mount=no' : ''}`,
  };
}

async function packInitramfs(
  directory: string,
  files: Map<string, string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const root = join(directory, 'root');
  for (const each of ['proc', 'sys', 'dev', 'root', 'bin']) await mkdir(join(root, each), { recursive: true });
  await symlink('bin', join(root, 'sbin'));
  for (const [to, from] of files) {
    await mkdir(dirname(join(root, to)), { recursive: true });
    await copyFile(from, join(root, to));
    if (/^(init$|bin\/|sbin\/|etc\/boot\/)/.test(to)) await chmod(join(root, to), 0o755);
  }
  for (const tool of tools) await symlink('labtools', join(root, 'bin', tool));
  // Not compressed: unpacking costs an emulated CPU more than the bytes do.
  await execa(
    'sh',
    [
      '-c',
      'cd "$1" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet > "$2"',
      'pack',
      root,
      join(directory, 'initrd'),
    ],
    {
      stdin: 'ignore',
      ...(signal ? { cancelSignal: signal } : {}),
    },
  );
  await rm(root, { recursive: true });
}

async function findBusybox(): Promise<string> {
  for (const path of ['/bin/busybox', '/usr/bin/busybox']) {
    const result = await execa(path, ['true'], { reject: false });
    if (!result.failed) return path;
  }
  throw new LabError('VMMIG_LAB_UNSUPPORTED', 'busybox is not installed (Debian package busybox-static)');
}
