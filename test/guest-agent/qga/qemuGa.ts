/** Debian's qemu-guest-agent: unpacked beside the system, to run here or in a tiny guest. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cached } from '../../../lab/cache.js';
import type { TinyGuestLaunch } from '../../../lab/guest/launch.js';
import { PackageSource } from '../../../lab/packages.js';

export const QGA_PORT = 'org.qemu.guest_agent.0';

/** The daemon's binary; downloaded once. */
export async function qemuGaBinary(): Promise<string> {
  const directory = await cached('qemu-guest-agent', async (into) => {
    const apt = join(into, 'apt');
    const source = await PackageSource.open(apt, { backports: false });
    await source.unpack(['qemu-guest-agent'], into);
    await rm(apt, { recursive: true });
  });
  return join(directory, 'usr/sbin/qemu-ga');
}

/** The binary and the libraries that it needs: path in a root directory to path here. QEMU needs the same ones. */
async function qemuGaFiles(): Promise<Record<string, string>> {
  const binary = await qemuGaBinary();
  const { stdout } = await execa('ldd', [binary]);
  const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  return { '/bin/qemu-ga': binary, ...Object.fromEntries(libraries.map((path) => [path, path])) };
}

/**
 * What makes a tiny guest run qemu-guest-agent behind `socketPath`.
 * @param directory - for a file of its own
 * @param options - for the daemon, such as `--block-rpcs=guest-exec`; null has the port without the daemon
 */
export async function withQemuGa(
  directory: string,
  socketPath: string,
  options: string | null = '',
): Promise<Pick<TinyGuestLaunch, 'extraFiles' | 'extraArgs'>> {
  const extraArgs = [
    ...['-chardev', `socket,id=qga,path=${socketPath},server=on,wait=off`],
    ...['-device', `virtserialport,chardev=qga,name=${QGA_PORT}`],
  ];
  if (options === null) return { extraArgs };
  await mkdir(directory, { recursive: true });
  const start = join(directory, 'start-qemu-ga');
  const command = `qemu-ga -p /dev/virtio-ports/${QGA_PORT} -t /run -f /run/qemu-ga.pid ${options}`;
  await writeFile(start, `#!/bin/sh\nsetsid ${command} </dev/null >/run/qemu-ga.log 2>&1 &\n`);
  return { extraArgs, extraFiles: { ...(await qemuGaFiles()), '/etc/boot/qemu-ga': start } };
}
