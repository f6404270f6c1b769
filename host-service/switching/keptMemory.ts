/**
 * What the source's service notes of a guest whose memory is kept in files, so that another one can go on from there should
 * this one die during the pull; and what that one finds. Nothing that is not the very same file is taken for it.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isRunning, processesMapping } from '../../hypervisor/index.js';
import { MemoryFile } from '../../pager/index.js';
import type { GuestMemory } from '../../relay/source/filePages.js';
import type { GuestBlock } from '../../relay/source/guestBlock.js';
import { type LoggedCapture, readCaptureLog } from '../../relay/store/captureLog.js';
import { type Ledger, readDecision, readLedger } from '../commit/index.js';
import { bootId } from '../newLedger.js';
import type { Params } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import type { OpenMemory } from './guestMemory.js';

type NotedBlocks = NonNullable<Ledger['memory']>['blocks'];

/** Where the relay notes what of the guest's memory is in no file. */
export function captureLogPath(runDir: string, migrationId: string): string {
  return join(runDir, migrationId, 'capture');
}

/** @returns null when a file has no name by which it could be opened without QEMU: a memfd, or one that was removed */
export async function noteBlocks({ blocks }: GuestMemory): Promise<NotedBlocks | null> {
  const noted: NotedBlocks = [];
  for (const { name, lengthBytes, place } of blocks) {
    if (place === null) noted.push({ name, lengthBytes, file: null });
    else {
      const { path } = place.file;
      if (path.startsWith('/proc/')) return null;
      const identity = await identityOf(path);
      if (identity === null) return null;
      noted.push({ name, lengthBytes, file: { path, offset: place.fileOffset, ...identity } });
    }
  }
  return noted;
}

/** @returns null when another service could not go on from what is kept */
export async function noteMemory(
  { key, connections, bandwidthBps, compress, switching, guest }: Params<'source.listen'>,
  memory: OpenMemory | null,
): Promise<NonNullable<Ledger['memory']> | null> {
  // libvirt removes its domain's file when that has gone, and is the one to end what is left.
  const isDomain = guest.libvirt !== undefined;
  const blocks = memory === null || isDomain ? null : await noteBlocks(memory);
  if (blocks === null) return null;
  return { key, connections, bandwidthBps, compress, reconnectTimeoutMs: switching!.reconnectTimeoutMs, blocks };
}

/** Everything that a service needs to take the place of one that died after the guest had gone. */
export interface SourceRemains {
  readonly ledger: Ledger;
  readonly settings: NonNullable<Ledger['memory']>;
  readonly memory: OpenMemory;
  readonly logged: LoggedCapture;
}

/** @throws ServiceError VMMIG_MEMORY_LOST when there is nothing that could be taken over, VMMIG_TAKEOVER when it may not be */
export async function findSourceRemains(runDir: string, migrationId: string): Promise<SourceRemains> {
  const ledger = await readLedger(runDir, migrationId, 'source');
  if (ledger === null) throw impossible('this host knows nothing of the migration');
  const { memory: settings, guest, service } = ledger;
  if (settings === undefined)
    throw lost(`what was left of the memory of ${guest.name} was kept by the service that has died`);
  if (ledger.bootId !== (await bootId())) throw lost('this host has restarted since');
  if (service !== null && (await isRunning(service))) throw impossible('the service that is at work does not answer');
  if ((await readDecision(runDir, migrationId, 'source')) !== 'held')
    throw impossible(`it was not decided that ${guest.name} may go`);
  const logged = logOf(runDir, migrationId);
  return { ledger, settings, logged, memory: await openNoted(settings.blocks, guest.process?.pid ?? null) };
}

function logOf(runDir: string, migrationId: string): LoggedCapture {
  try {
    return readCaptureLog(captureLogPath(runDir, migrationId));
  } catch (thrown) {
    throw lost((thrown as Error).message);
  }
}

/** @param qemuPid - of the guest's QEMU, which may still be there, paused; nobody else may have the files */
async function openNoted(noted: NotedBlocks, qemuPid: number | null): Promise<OpenMemory> {
  const files: MemoryFile[] = [];
  const dispose = async () => {
    for (const file of files.splice(0)) await file[Symbol.asyncDispose]();
  };
  try {
    const blocks: GuestBlock<MemoryFile>[] = [];
    for (const { name, lengthBytes, file } of noted) {
      if (file !== null) files.push(await openSame(file, qemuPid));
      blocks.push({ name, lengthBytes, place: file && { file: files.at(-1)!, fileOffset: file.offset } });
    }
    return { blocks, hintLimitBytes: 0, [Symbol.asyncDispose]: dispose };
  } catch (thrown) {
    await dispose();
    throw thrown;
  }
}

async function openSame(
  { path, device, inode }: NonNullable<NotedBlocks[number]['file']>,
  qemuPid: number | null,
): Promise<MemoryFile> {
  const found = await identityOf(path);
  if (found?.device !== device || found.inode !== inode) throw lost(`${path} is not the guest's memory any more`);
  const user = (await processesMapping(path, BigInt(inode))).find((pid) => pid !== qemuPid);
  if (user !== undefined) throw lost(`${path} may not be the guest's memory any more: process ${user} has mapped it`);
  return await MemoryFile.open(path);
}

async function identityOf(path: string): Promise<{ readonly device: string; readonly inode: string } | null> {
  const found = await stat(path, { bigint: true }).catch(() => null);
  return found === null ? null : { device: String(found.dev), inode: String(found.ino) };
}

function impossible(message: string): ServiceError {
  return new ServiceError('VMMIG_TAKEOVER', message);
}

function lost(message: string): ServiceError {
  return new ServiceError('VMMIG_MEMORY_LOST', message);
}
