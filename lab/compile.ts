/** The lab's small C programs, compiled when first needed and kept in the cache under the hash of their sources. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { assetPath } from './assets.js';
import { cached } from './cache.js';
import { LabError } from './errors.js';

/** Compiles `sources` (paths relative to the project) into one program; returns its path. */
export async function compile(
  name: string,
  sources: string[],
  options: { compiler: 'gcc' | 'musl-gcc'; flags?: string[]; signal?: AbortSignal },
): Promise<string> {
  const flags = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', ...(options.flags ?? [])];
  const hash = createHash('sha256').update([options.compiler, ...flags].join(' '));
  const paths = sources.map(assetPath);
  for (const path of paths) hash.update(await readFile(path));
  const build = async (directory: string) => {
    const args = [...flags, '-o', join(directory, name), ...paths.filter((path) => path.endsWith('.c'))];
    const result = await execa(options.compiler, args, { reject: false, stdin: 'ignore' });
    if (result.failed)
      throw new LabError('VMMIG_LAB_COMMAND', `${options.compiler} failed: ${result.stderr || result.message}`);
  };
  return join(await cached(`${name}-${hash.digest('hex').slice(0, 16)}`, build, options.signal), name);
}
