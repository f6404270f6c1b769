/** Which libvirt the lab's hosts run: the system's, or version 11.3 from the release's backports. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../cache.js';
import { PackageSource } from '../packages.js';

export const libvirtVersions = ['9.0', '11.3'] as const;

/** `9.0` stands for the system's libvirt. */
export type LibvirtVersion = (typeof libvirtVersions)[number];

/** The daemons, their QEMU driver and the client; what they depend on comes by itself. */
const wanted = ['libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-daemon-log', 'libvirt-clients'];

/** Where a host finds another libvirt than the system's: a directory to be laid over its /usr. Null for the system's. */
export async function libvirtOverlay(version: LibvirtVersion, signal?: AbortSignal): Promise<string | null> {
  if (version === '9.0') return null;
  return join(await cached('libvirt-11.3', (directory) => unpackBackports(directory, signal), signal), 'usr');
}

async function unpackBackports(directory: string, signal: AbortSignal | undefined): Promise<void> {
  const apt = join(directory, 'apt');
  const source = await PackageSource.open(apt, { backports: true, ...(signal ? { signal } : {}) });
  const suite = `${source.codename}-backports`;
  const packages = await source.wouldInstall(wanted, suite);
  // An upgrade of what this machine has may concern more than the daemons: services, other hypervisors.
  const needed = packages.filter((name) => !/^libvirt-daemon-(system|config|driver-(lxc|vbox|xen))/.test(name));
  await source.unpack(needed, directory, suite);
  await rm(apt, { recursive: true, force: true });
  for (const each of ['doc', 'man', 'locale']) {
    await rm(join(directory, 'usr/share', each), { recursive: true, force: true });
  }
}
