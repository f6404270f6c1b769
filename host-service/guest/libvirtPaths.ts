/**
 * Where the stream of a domain goes: the same path on both hosts, as libvirt wants it, in the directory that libvirt's
 * QEMUs have for themselves, so that one that is not root may listen there. On the source it is libvirt that connects.
 */
import { chown, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Owner, qemuStateDirectory } from '../../hypervisor/index.js';

const directoryOf = (migrationId: string) => join(qemuStateDirectory, `vmmig-${migrationId}`);

/** @param owner - of the QEMU that is to listen there */
export async function makeStreamPath(migrationId: string, owner: Owner | null): Promise<string> {
  const directory = directoryOf(migrationId);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (owner !== null) await chown(directory, owner.uid, owner.gid);
  return join(directory, 'stream');
}

export async function removeStreamPath(migrationId: string): Promise<void> {
  await rm(directoryOf(migrationId), { recursive: true, force: true });
}
