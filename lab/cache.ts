/**
 * Things the lab downloads or builds once and keeps: QEMU 10.0, the guest kernel, initramfs images, compiled C tools,
 * disk templates. An entry appears whole or not at all, and two builders of the same entry wait for each other.
 */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { acquireFileLock } from './fileLock.js';

/** Where cached entries live; `VMMIG_CACHE_DIR` overrides it. */
export function cacheDir(): string {
  return process.env.VMMIG_CACHE_DIR ?? '/var/cache/vmmig';
}

/**
 * Gives the directory of the cache entry `name`, calling `build` with an empty directory to fill when there is none.
 * The name must change when what the entry is made from changes.
 */
export async function cached(
  name: string,
  build: (directory: string) => Promise<void>,
  signal?: AbortSignal,
): Promise<string> {
  const path = join(cacheDir(), name);
  if (existsSync(path)) return path;
  await using _lock = await acquireFileLock(join(cacheDir(), `.${name}.lock`), signal ? { signal } : {});
  if (existsSync(path)) return path;
  const building = join(cacheDir(), `.${name}.building`);
  await rm(building, { recursive: true, force: true });
  await mkdir(building, { recursive: true });
  try {
    await build(building);
    await rename(building, path);
  } catch (error) {
    await rm(building, { recursive: true, force: true });
    throw error;
  }
  return path;
}
