/** The files of the ledger: on disk when they say so, and read without trusting who put them there. */
import { closeSync, constants, fsyncSync, openSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { LedgerError } from './ledgerError.js';

/** Far above what a ledger takes. */
const maxBytes = 64 * 1024;

/** Writes a new file and waits until it is on disk. It must not be there yet. */
export async function writeSynced(path: string, content: string): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.writeFile(content);
  await file.sync();
}

/** Puts on disk which names a directory holds. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  await directory.sync();
}

/** As {@link writeSynced}, without letting anything else run meanwhile. */
export function writeSyncedNow(path: string, content: string): void {
  const file = openSync(path, 'wx', 0o600);
  try {
    writeSync(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

export function syncDirectoryNow(path: string): void {
  const directory = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/**
 * A small file that only root or this user can have written; null when there is none.
 * @throws LedgerError VMMIG_LEDGER_INVALID
 */
export async function readGuarded(path: string): Promise<string | null> {
  const invalid = (reason: string, cause?: unknown) =>
    new LedgerError('VMMIG_LEDGER_INVALID', `${path} ${reason}`, { cause });
  try {
    // Opening must neither follow a link nor wait for the other end of a pipe.
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const status = await file.stat();
    if (!status.isFile()) throw invalid('is not a plain file');
    if (status.uid !== 0 && status.uid !== process.getuid!()) throw invalid('belongs to another user');
    if ((status.mode & 0o077) !== 0) throw invalid('is open to other users');
    if (status.size > maxBytes) throw invalid(`is larger than ${maxBytes} bytes`);
    const buffer = Buffer.alloc(status.size);
    const { bytesRead } = await file.read(buffer, 0, status.size, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } catch (thrown) {
    if (thrown instanceof LedgerError) throw thrown;
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw invalid(`cannot be read: ${message}`, thrown);
  }
}
