import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MemoryFile } from '../../pager/index.js';

const MiB = 1024 ** 2;
let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp('/dev/shm/vmmig-pager-');
  path = join(directory, 'ram');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** A file of 64 MiB with pages at these offsets. */
async function sparse(offsets: readonly number[]): Promise<Buffer> {
  const page = randomBytes(4096);
  await using file = await open(path, 'w');
  await file.truncate(64 * MiB);
  for (const offset of offsets) await file.write(page, 0, 4096, offset);
  return page;
}

async function runsOf(file: MemoryFile, offset?: number, lengthBytes?: number): Promise<number[][]> {
  const runs: number[][] = [];
  for await (const run of file.dataRuns(offset, lengthBytes)) runs.push([run.offset, run.lengthBytes]);
  return runs;
}

describe('a memory file', () => {
  test('tells where it has pages, in all of it or in a part', async () => {
    await sparse([0, 4096, 8 * MiB, 64 * MiB - 4096]);
    await using file = await MemoryFile.open(path);
    expect(file.lengthBytes).toBe(64 * MiB);
    expect(await runsOf(file)).toEqual([
      [0, 8192],
      [8 * MiB, 4096],
      [64 * MiB - 4096, 4096],
    ]);
    expect(await runsOf(file, 4096, 8 * MiB)).toEqual([
      [4096, 4096],
      [8 * MiB, 4096],
    ]);
    expect(await runsOf(file, MiB, MiB)).toEqual([]);
    expect(file.nextData(MiB)).toBe(8 * MiB);
    expect(file.nextData(64 * MiB)).toBe(64 * MiB);
  });

  test('has its pages when the file has lost its name, and zeros in its holes', async () => {
    const page = await sparse([MiB]);
    await using file = await MemoryFile.open(path);
    await unlink(path);
    const bytes = Buffer.alloc(3 * 4096, 1);
    file.read(MiB - 4096, bytes.length, bytes);
    expect(bytes.equals(Buffer.concat([Buffer.alloc(4096), page, Buffer.alloc(4096)]))).toBe(true);
  });

  test('gives its memory back', async () => {
    await sparse([0, MiB, 2 * MiB]);
    await using file = await MemoryFile.open(path);
    await file.release(MiB, 4096);
    expect((await runsOf(file)).map(([offset]) => offset)).toEqual([0, 2 * MiB]);
    await file.release();
    expect(await runsOf(file)).toEqual([]);
  });

  test('is an error, not an end, when it is cut off while it is read', async () => {
    await sparse([0]);
    await using file = await MemoryFile.open(path);
    await truncate(path, MiB);
    const read = () => file.read(MiB - 4096, 8192, Buffer.alloc(8192));
    expect(read).toThrow(expect.objectContaining({ code: 'VMMIG_MEMORY_FILE_READ' }));
  });

  test('is nothing but a file', async () => {
    const refusal = { code: 'VMMIG_MEMORY_FILE_OPEN' };
    await expect(MemoryFile.open(join(directory, 'none'))).rejects.toMatchObject(refusal);
    await expect(MemoryFile.open(directory)).rejects.toMatchObject(refusal);
    await writeFile(path, '');
    await using file = await MemoryFile.open(path);
    expect(await runsOf(file)).toEqual([]);
  });

  test('stops looking for pages when it is told to', async () => {
    await sparse([0, MiB]);
    await using file = await MemoryFile.open(path);
    const runs = file.dataRuns(0, file.lengthBytes, AbortSignal.abort(new Error('enough')));
    await expect(runs.next()).rejects.toThrow('enough');
  });
});
