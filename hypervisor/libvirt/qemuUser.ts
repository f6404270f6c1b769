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

/** Of a user as a domain's label names it. @returns null when this host has none of that name */
export async function ownerNamed(user: string): Promise<Owner | null> {
  const isWanted = ([name, , uid]: readonly string[]) => name === user || uid === user;
  const [, , uid, gid] = (await users()).find(isWanted) ?? [];
  if (uid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  return /^\d+$/.test(user) ? { uid: Number(user), gid: Number(user) } : null;
}

/** By its name, where this host has one for it. @returns null of one that runs as this process does */
export async function qemuUser(virsh: Virsh, limits: VirshLimits = {}): Promise<string | null> {
  const owner = await qemuOwner(virsh, limits);
  if (owner === null || owner.uid === process.getuid?.()) return null;
  const known = (await users()).find(([, , uid]) => uid === String(owner.uid));
  return known?.[0] ?? String(owner.uid);
}

/** The fields of each, passwd(5). */
async function users(): Promise<string[][]> {
  const lines = await readFile('/etc/passwd', 'utf8').catch(() => '');
  return lines.split('\n').map((line) => line.split(':'));
}
