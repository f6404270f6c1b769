import { createHash, randomBytes } from 'node:crypto';
import { appendFile, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type DiskReader, openDisk, openRawDisk } from '../../disk/index.js';

const MiB = 1024 * 1024;
const content = randomBytes(8 * MiB + 1234);
let folder: string;
let image: string;
const cleanups: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmmig-disk-'));
  image = join(folder, 'disk.img');
  await writeFile(image, content, { flush: true });
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function opened(path: string, options?: Parameters<typeof openRawDisk>[1]): Promise<DiskReader> {
  const disk = await openRawDisk(path, options);
  cleanups.push(async () => await disk[Symbol.asyncDispose]());
  return disk;
}

/** Bytes of the file in this host's page cache. */
async function cachedBytes(path: string): Promise<number> {
  const { stdout } = await execa('fincore', ['--bytes', '--noheadings', '--output', 'RES', path]);
  return Number(stdout);
}

async function dropFromCache(path: string): Promise<void> {
  await execa('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0']);
  expect(await cachedBytes(path)).toBe(0);
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe.each([true, false])('with direct I/O: %s', (direct) => {
  test('gives the bytes of any range, aligned or not, up to the last byte', async () => {
    const disk = await opened(image, { direct, maxReadBytes: 64 * 1024 });
    expect(disk).toMatchObject({ direct, path: image, lengthBytes: content.length });
    const ranges: [number, number][] = [
      [0, 1],
      [0, 4096],
      [511, 2],
      [4095, 4098],
      [MiB - 3, 200_000],
      [content.length - 1, 1],
      [content.length - 5000, 5000],
      [0, content.length],
      [content.length, 0],
    ];
    const answers = await Promise.all(ranges.map(([offset, length]) => disk.read(offset, length)));
    for (const [i, [offset, length]] of ranges.entries()) {
      expect(sha256(answers[i]!)).toBe(sha256(content.subarray(offset, offset + length)));
    }
  });

  test('gives each caller a buffer of its own, also for ranges that overlap', async () => {
    const disk = await opened(image, { direct });
    const [first, second] = await Promise.all([disk.read(0, 4096), disk.read(100, 4096)]);
    first!.fill(0);
    expect(second!.equals(content.subarray(100, 4196))).toBe(true);
  });

  test('leaves nothing in the page cache of the host', async () => {
    await dropFromCache(image);
    const disk = await opened(image, { direct });
    const reads: Promise<Buffer>[] = [];
    for (let offset = 0; offset + 10_000 < content.length; offset += 300_000) reads.push(disk.read(offset, 10_000));
    await Promise.all(reads);
    await disk.read(0, 4 * MiB);
    expect(await cachedBytes(image)).toBe(0);
  });

  test('does not trust what the page cache of the host says about a block device', async () => {
    const backing = join(folder, `loop-${direct}.img`);
    // Not a multiple of 4096: the last sector is alone.
    await writeFile(backing, Buffer.alloc(MiB + 512, 'a'), { flush: true });
    const { stdout: device } = await execa('losetup', ['--find', '--show', backing]);
    cleanups.push(() => execa('losetup', ['--detach', device]));
    const disk = await opened(device, { direct });
    expect(disk.lengthBytes).toBe(MiB + 512);

    await using cached = await open(device, 'r');
    const before = Buffer.alloc(MiB + 512);
    await cached.read(before, 0, before.length, 0);
    await writeFile(backing, Buffer.alloc(MiB + 512, 'b'), { flush: true, flag: 'r+' });
    const stale = Buffer.alloc(512);
    await cached.read(stale, 0, 512, 0);
    expect(stale.toString('latin1', 0, 1), 'the page cache of the device is stale').toBe('a');

    expect((await disk.read(0, MiB + 512)).equals(Buffer.alloc(MiB + 512, 'b'))).toBe(true);
    expect((await disk.read(MiB, 512)).equals(Buffer.alloc(512, 'b'))).toBe(true);
  });

  test('reports storage that fails, for the ranges it fails for and no others', async () => {
    const growing = join(folder, `shrunk-${direct}.img`);
    await writeFile(growing, content);
    const disk = await opened(growing, { direct });
    await truncate(growing, 8192);
    const [there, gone] = await Promise.allSettled([disk.read(0, 4096), disk.read(8192, 4096)]);
    expect(there).toMatchObject({ status: 'fulfilled' });
    expect(gone).toMatchObject({ reason: { code: 'VMMIG_DISK_READ' } });
  });
});

test.each([true, false])('tells bad sectors from their neighbours, with direct I/O: %s', async (direct) => {
  const backing = join(folder, `bad-${direct}.img`);
  await writeFile(backing, content.subarray(0, MiB), { flush: true });
  const { stdout: device } = await execa('losetup', ['--find', '--show', backing]);
  cleanups.push(() => execa('losetup', ['--detach', device]));
  const disk = await opened(device, { direct });
  // A loop device answers with I/O errors where its file has ended.
  await truncate(backing, 512 * 1024);
  const [good, bad, alsoBad] = await Promise.allSettled([
    disk.read(512 * 1024 - 8192, 8192),
    disk.read(512 * 1024, 4096),
    disk.read(512 * 1024 + 8192, 4096),
  ]);
  expect(good).toMatchObject({ status: 'fulfilled', value: content.subarray(512 * 1024 - 8192, 512 * 1024) });
  for (const one of [bad, alsoBad]) expect(one).toMatchObject({ reason: { code: 'VMMIG_DISK_READ' } });
});

test('merges what is asked for in one go and counts what the storage was asked for', async () => {
  const disk = await opened(image);
  const reads: Promise<Buffer>[] = [];
  for (let page = 255; page >= 0; page -= 1) reads.push(disk.read(page * 4096, 4096));
  await Promise.all(reads);
  expect(disk.counters).toEqual({ requests: 256, reads: 1, readBytes: MiB });
});

test('reads a range that was appended after opening', async () => {
  const growing = join(folder, 'growing.img');
  await writeFile(growing, content);
  const disk = await opened(growing);
  await expect(disk.read(content.length, 10)).rejects.toMatchObject({ code: 'VMMIG_DISK_RANGE' });
  await appendFile(growing, 'more bytes');
  expect((await disk.read(content.length, 10)).toString()).toBe('more bytes');
  expect(disk.lengthBytes).toBe(content.length + 10);
});

test.each([
  [-1, 10],
  [0, -1],
  [0.5, 10],
  [Number.MAX_SAFE_INTEGER, 10],
  [Number.NaN, 1],
  [content.length - 9, 10],
])('refuses the range at %d of %d bytes', async (offset, length) => {
  const disk = await opened(image);
  await expect(disk.read(offset, length)).rejects.toMatchObject({ code: 'VMMIG_DISK_RANGE' });
});

test('closing rejects what waits, lets the reads in flight end and can be repeated', async () => {
  const disk = await opened(image, { parallelReads: 1, maxReadBytes: 4096 });
  const reads = [0, 1, 2].map((i) => disk.read(i * MiB, 4096));
  const settled = Promise.allSettled(reads);
  await Promise.resolve();
  await Promise.all([disk[Symbol.asyncDispose](), disk[Symbol.asyncDispose]()]);
  const [first, ...others] = await settled;
  expect(first?.status).toBe('fulfilled');
  for (const other of others) expect(other).toMatchObject({ reason: { code: 'VMMIG_DISK_CLOSED' } });
  await expect(disk.read(0, 1)).rejects.toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
});

test('an aborted signal rejects what waits with its reason', async () => {
  const abort = new AbortController();
  const disk = await opened(image, { signal: abort.signal });
  const read = disk.read(0, 4096);
  abort.abort(new Error('enough'));
  await expect(read).rejects.toThrow('enough');
  await expect(openRawDisk(image, { signal: abort.signal })).rejects.toThrow('enough');
});

test('says what cannot be opened, and which formats cannot be read', async () => {
  await expect(openRawDisk(join(folder, 'absent'))).rejects.toMatchObject({ code: 'VMMIG_DISK_OPEN' });
  await expect(openRawDisk(folder)).rejects.toMatchObject({ code: 'VMMIG_DISK_OPEN' });
  await expect(openRawDisk('/proc/version', { direct: true })).rejects.toMatchObject({ code: 'VMMIG_DISK_OPEN' });
  await expect(openDisk({ path: image, format: 'quorum' })).rejects.toMatchObject({ code: 'VMMIG_DISK_FORMAT' });
  await using disk = await openDisk({ path: image, format: 'raw' });
  expect(disk.lengthBytes).toBe(content.length);
});

test('agrees with the image under many concurrent readers of random ranges', async () => {
  const disk = await opened(image, { maxReadBytes: 128 * 1024 });
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 48271) % 2147483647;
    return seed % below;
  };
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let i = 0; i < 20; i += 1) {
        const length = 1 + random(300_000);
        const offset = random(content.length - length);
        const bytes = await disk.read(offset, length);
        if (!bytes.equals(content.subarray(offset, offset + length))) throw new Error(`wrong bytes at ${offset}`);
      }
    }),
  );
});
