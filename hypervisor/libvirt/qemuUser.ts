/** Whom a daemon lets its QEMUs run as. */
import { readFile, stat } from 'node:fs/promises';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** What libvirt's QEMUs have for themselves: the daemon gives it to their user whenever it starts. */
export const qemuStateDirectory = '/var/lib/libvirt/qemu';

/** Told by whose directory that is: the daemon would answer only after it had asked each emulator what it can do. */
export async function qemuOwner(): Promise<Owner | null> {
  return await stat(qemuStateDirectory).catch(() => null);
}

/** Of a user as a domain's label names it. @returns null when this host has none of that name */
export async function ownerNamed(user: string): Promise<Owner | null> {
  const isWanted = ([name, , uid]: readonly string[]) => name === user || uid === user;
  const [, , uid, gid] = (await users()).find(isWanted) ?? [];
  if (uid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  return /^\d+$/.test(user) ? { uid: Number(user), gid: Number(user) } : null;
}

/** By its name, where this host has one for it. @returns null of one that runs as this process does */
export async function qemuUser(): Promise<string | null> {
  const owner = await qemuOwner();
  if (owner === null || owner.uid === process.getuid?.()) return null;
  const known = (await users()).find(([, , uid]) => uid === String(owner.uid));
  return known?.[0] ?? String(owner.uid);
}

/** The fields of each, passwd(5). */
async function users(): Promise<string[][]> {
  const lines = await readFile('/etc/passwd', 'utf8').catch(() => '');
  return lines.split('\n').map((line) => line.split(':'));
}
