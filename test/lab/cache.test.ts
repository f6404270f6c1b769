import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cached } from '../../lab/cache.js';
import { acquireFileLock } from '../../lab/fileLock.js';
import { temporaryDirectory } from './temporary.js';

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
const cacheBefore = process.env.VMMIG_CACHE_DIR;

beforeAll(async () => {
  directory = await temporaryDirectory();
  process.env.VMMIG_CACHE_DIR = directory.path;
});

afterAll(async () => {
  if (cacheBefore === undefined) delete process.env.VMMIG_CACHE_DIR;
  else process.env.VMMIG_CACHE_DIR = cacheBefore;
  await directory[Symbol.asyncDispose]();
});

describe('cached', () => {
  it('builds an entry once for all who ask at the same time', async () => {
    let builds = 0;
    const build = async (into: string) => {
      builds++;
      await new Promise((resolve) => setTimeout(resolve, 50));
      await writeFile(join(into, 'content'), 'whole');
    };
    const paths = await Promise.all([cached('entry', build), cached('entry', build), cached('entry', build)]);
    expect(builds).toBe(1);
    expect(new Set(paths).size).toBe(1);
    expect(await readFile(join(paths[0]!, 'content'), 'utf8')).toBe('whole');
  });

  it('leaves nothing of a build that failed, and tries again', async () => {
    const failing = cached('later', async (into) => {
      await writeFile(join(into, 'half'), '');
      throw new Error('no network');
    });
    await expect(failing).rejects.toThrow('no network');
    expect((await readdir(directory.path)).filter((name) => !name.endsWith('.lock'))).not.toContain('later');
    const path = await cached('later', (into) => writeFile(join(into, 'content'), ''));
    expect(await readdir(path)).toEqual(['content']);
  });
});

describe('acquireFileLock', () => {
  it('gives up with an error that says why', async () => {
    const path = join(directory.path, 'held');
    await using _held = await acquireFileLock(path);
    await expect(acquireFileLock(path, { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'VMMIG_LAB_BUSY' });
  });

  it('stops waiting when aborted', async () => {
    const path = join(directory.path, 'aborted');
    await using _held = await acquireFileLock(path);
    await expect(acquireFileLock(path, { signal: AbortSignal.timeout(100) })).rejects.toThrow(/aborted/);
  });

  it('stays held when the signal it was waited with aborts later', async () => {
    const path = join(directory.path, 'kept');
    const controller = new AbortController();
    await using _held = await acquireFileLock(path, { signal: controller.signal });
    controller.abort();
    await expect(acquireFileLock(path, { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'VMMIG_LAB_BUSY' });
  });

  it('is free again when its owner was killed', async () => {
    const path = join(directory.path, 'orphaned');
    const module = fileURLToPath(new URL('../../lab/fileLock.ts', import.meta.url));
    const code = `import { acquireFileLock } from ${JSON.stringify(module)};
      await acquireFileLock(${JSON.stringify(path)}); console.log('locked'); setInterval(() => {}, 1000);`;
    const args = ['--import', 'tsx', '--input-type=module', '--eval', code];
    const owner = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(owner.stdout, 'data');
      await expect(acquireFileLock(path, { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'VMMIG_LAB_BUSY' });
    } finally {
      owner.kill('SIGKILL');
    }
    await using _lock = await acquireFileLock(path, { timeoutMs: 5000 });
  });
});
