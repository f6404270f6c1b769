/** The lab's own commands in a guest: one static program, called by the names of all of them. */
import { readdir } from 'node:fs/promises';
import { assetPath } from '../assets.js';
import { compile } from '../compile.js';

/** The names it is to be linked to. */
export const tools = ['command-server', 'counter', 'dm-linear', 'fswriter', 'pattern', 'ticker'];

/** Compiles it, or takes it from the cache; returns its path. */
export async function buildLabTools(signal?: AbortSignal): Promise<string> {
  const directory = 'lab/guest/tools';
  const sources = (await readdir(assetPath(directory))).sort().map((name) => `${directory}/${name}`);
  return compile('labtools', sources, {
    compiler: 'musl-gcc',
    flags: ['-static', '-s', '-idirafter', '/usr/include', '-idirafter', '/usr/include/x86_64-linux-gnu'],
    ...(signal ? { signal } : {}),
  });
}
