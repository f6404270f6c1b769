/** A directory for one test file, on a file system with O_DIRECT, and a lab of its own in it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

export async function temporaryDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp('/var/tmp/vmmig-lab-');
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true });
    },
  };
}

/** Points the lab at a directory of this test's own. Returns the directory that holds it. */
export async function useOwnLab(): Promise<{ path: string } & AsyncDisposable> {
  const directory = await temporaryDirectory();
  process.env.VMMIG_LAB_DIR = join(directory.path, 'lab');
  return directory;
}
