/** Which QEMU the lab starts: the system's, or version 10.0 from the release's backports, unpacked beside it. */
import { existsSync } from 'node:fs';
import { chmod, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDir, cached } from './cache.js';
import { PackageSource } from './packages.js';

/** `7.2` stands for the system's QEMU. */
export type QemuVersion = '7.2' | '10.0';

/** What the hosts have: both the same, or hostA 7.2 and hostB 10.0. */
export const labQemus = ['7.2', '10.0', 'mixed'] as const;
export type LabQemu = (typeof labQemus)[number];

const systemBinary = '/usr/bin/qemu-system-x86_64';

/**
 * How to start a QEMU. `command` alone is enough: for the unpacked version it is a wrapper that sets the environment and
 * becomes QEMU by exec, with `-L` options for its firmware put before the caller's arguments. A running process's
 * /proc/PID/cmdline thus names the real binary, which does not work without the wrapper's environment: whoever derives a
 * command line from it must start `command` instead (the inventory's `qemu` field of a host).
 */
export async function qemuBinary(
  version: QemuVersion,
  options: { signal?: AbortSignal } = {},
): Promise<{ command: string; args: string[]; env: Record<string, string> }> {
  if (version === '7.2') return { command: systemBinary, args: [], env: {} };
  const root = await cached('qemu-10.0', (directory) => unpackBackports(directory, options.signal), options.signal);
  return { command: join(root, 'qemu-system-x86_64'), args: [], env: {} };
}

async function unpackBackports(directory: string, signal: AbortSignal | undefined): Promise<void> {
  const apt = join(directory, 'apt');
  const source = await PackageSource.open(apt, { backports: true, ...(signal ? { signal } : {}) });
  const suite = `${source.codename}-backports`;
  // What an upgrade would bring along is what differs from the system: firmware, modules and maybe libraries.
  const packages = await source.wouldInstall(['qemu-system-x86'], suite);
  await source.unpack(packages, directory, suite);
  await rm(apt, { recursive: true, force: true });
  await rm(join(directory, 'usr/share/doc'), { recursive: true, force: true });

  const final = join(cacheDir(), 'qemu-10.0');
  const libraries = join(directory, 'usr/lib/x86_64-linux-gnu');
  const hasLibraries = existsSync(libraries) && (await readdir(libraries)).some((name) => name.includes('.so'));
  const wrapper = [
    '#!/bin/sh',
    `export QEMU_MODULE_DIR=${final}/usr/lib/x86_64-linux-gnu/qemu`,
    ...(hasLibraries ? [`export LD_LIBRARY_PATH=${final}/usr/lib/x86_64-linux-gnu`] : []),
    `exec ${final}${systemBinary} -L ${final}/usr/share/qemu -L ${final}/usr/share/seabios "$@"`,
  ];
  await writeFile(join(directory, 'qemu-system-x86_64'), `${wrapper.join('\n')}\n`);
  await chmod(join(directory, 'qemu-system-x86_64'), 0o755);
}
