/**
 * A lock between processes that cannot outlive its owner: flock(2), held by a child that ends when our end of its
 * standard input closes, whichever way this process ends.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { execa } from 'execa';
import { LabError } from './errors.js';

/** Waits for and takes the lock on `path` (created when missing). Disposing gives it back. */
export async function acquireFileLock(
  path: string,
  options: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<AsyncDisposable> {
  await mkdir(dirname(path), { recursive: true });
  const timeoutS = Math.ceil((options.timeoutMs ?? 600_000) / 1000);
  const holder = ['sh', '-c', 'echo locked; exec cat >/dev/null'];
  const child = execa('flock', ['--no-fork', '--wait', String(timeoutS), path, ...holder], {
    stdin: 'pipe',
    reject: false,
    buffer: false,
    // A lock is given back by its owner's code, not by the terminal's Ctrl-C.
    detached: true,
  });
  // Aborting ends the waiting. Once held, the lock is its owner's until disposed: cleaning up happens under it.
  const giveUp = () => child.kill();
  options.signal?.addEventListener('abort', giveUp, { once: true });
  if (options.signal?.aborted) giveUp();
  const locked = new Promise<boolean>((resolve) => {
    child.stdout.once('data', () => resolve(true));
    void child.then(() => resolve(false));
  });
  const isLocked = await locked;
  options.signal?.removeEventListener('abort', giveUp);
  if (!isLocked) {
    options.signal?.throwIfAborted();
    throw new LabError('VMMIG_LAB_BUSY', `Could not lock ${path} within ${timeoutS} s: another lab command is at work`);
  }
  return {
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await child;
    },
  };
}
