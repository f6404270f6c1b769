/** Where a test puts its files. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** What guests keep their memory files on. */
export const sharedMemory = '/dev/shm';

/** A directory of the running test. It is removed when that has ended, also when it ran out of time. */
export async function temporaryDirectory(name: string, under = tmpdir()): Promise<string> {
  const directory = await mkdtemp(join(under, `vmmig-${name}-`));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
