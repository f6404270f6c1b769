/** Whom a daemon lets its QEMUs run as. */
import { readFile } from 'node:fs/promises';
import type { Virsh, VirshLimits } from './virsh.js';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** @returns null when it does not say. @throws LibvirtError */
export async function qemuOwner(virsh: Virsh, limits: VirshLimits = {}): Promise<Owner | null> {
  const capabilities = await virsh.run(['capabilities'], limits);
  const [, uid, gid] = /<baselabel type='(?:kvm|qemu)'>\+(\d+):\+(\d+)<\/baselabel>/.exec(capabilities) ?? [];
  return uid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

/** By its name, where this host has one for it. @returns null of one that runs as this process does */
export async function qemuUser(virsh: Virsh, limits: VirshLimits = {}): Promise<string | null> {
  const owner = await qemuOwner(virsh, limits);
  if (owner === null || owner.uid === process.getuid?.()) return null;
  const users = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const known = users.split('\n').find((line) => line.split(':')[2] === String(owner.uid));
  return known?.split(':')[0] ?? String(owner.uid);
}
