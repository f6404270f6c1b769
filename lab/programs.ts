/** What the lab runs of this machine's programs, and the Debian packages that have them. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { LabError } from './errors.js';

export const labPrograms = {
  'apt-get': 'apt',
  busybox: 'busybox-static',
  cpio: 'cpio',
  gcc: 'gcc',
  ip: 'iproute2',
  mke2fs: 'e2fsprogs',
  'musl-gcc': 'musl-tools',
  nsenter: 'util-linux',
  'qemu-system-x86_64': 'qemu-system-x86',
  socat: 'socat',
  'ssh-keygen': 'openssh-client',
  sshd: 'openssh-server',
};

/** For hosts with the system's libvirt. */
export const libvirtPrograms = { libvirtd: 'libvirt-daemon', virsh: 'libvirt-clients', virtlogd: 'libvirt-daemon' };

/** For building the debian guest. */
export const debianGuestPrograms = {
  debootstrap: 'debootstrap',
  losetup: 'mount',
  lvm: 'lvm2',
  'mkfs.xfs': 'xfsprogs',
  sfdisk: 'fdisk',
};

/** A `VMMIG_LAB_UNSUPPORTED` that says what to install, when one of `wanted` is missing. */
export function requirePrograms(wanted: Record<string, string>): void {
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  const missing = Object.entries(wanted)
    .filter(([program]) => !directories.some((directory) => existsSync(join(directory, program))))
    .map(([, debianPackage]) => debianPackage);
  if (missing.length > 0) {
    const command = `apt-get install ${[...new Set(missing)].join(' ')}`;
    throw new LabError('VMMIG_LAB_UNSUPPORTED', `The lab needs programs that are not installed: ${command}`);
  }
}
