import { copyFile, open } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type DiskReader, openDisk, proveSameDisk, sampleDisk } from '../../disk/index.js';
import { Images, KiB, MiB } from './images.js';

const cleanups: (() => Promise<unknown>)[] = [];
let images: Images;

beforeAll(async () => {
  images = await Images.open();
  const filled = [0, 64 * KiB, MiB, 128 * MiB, 200 * MiB - 4 * KiB].map((at) => [at, 4 * KiB] as const);
  await images.raw('disk.raw', 200 * MiB, filled);
  await images.img('convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2');
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(() => images[Symbol.asyncDispose]());

async function opened(name: string, format = 'raw'): Promise<DiskReader> {
  const disk = await openDisk({ path: images.path(name), format }, { lazy: true });
  cleanups.push(async () => await disk[Symbol.asyncDispose]());
  return disk;
}

test('a disk is the same in whatever format its image is, told from a few KiB', async () => {
  const raw = await opened('disk.raw');
  const samples = await sampleDisk(raw);
  expect(raw.counters.readBytes).toBeLessThan(256 * KiB);
  const { verdict, compared, differing } = await proveSameDisk(
    await opened('disk.qcow2', 'qcow2'),
    JSON.parse(JSON.stringify(samples)),
  );
  expect({ verdict, differing }).toEqual({ verdict: 'same', differing: [] });
  expect(compared).toBeGreaterThanOrEqual(5);
});

test('a disk with another file system, partition table or end is another one', async () => {
  const samples = await sampleDisk(await opened('disk.raw'));
  for (const at of [0, 64 * KiB, MiB, 128 * MiB, 200 * MiB - 4 * KiB]) {
    await copyFile(images.path('disk.raw'), images.path('other.raw'));
    await using file = await open(images.path('other.raw'), 'r+');
    await file.write(Buffer.from('other'), 0, 5, at + 100);
    const other = await opened('other.raw');
    expect(await proveSameDisk(other, samples)).toMatchObject({ verdict: 'different', differing: [at] });
    const again = await sampleDisk(other, [at]);
    expect(await proveSameDisk(other, again), 'it was written meanwhile').toMatchObject({
      verdict: 'same',
      compared: 1,
    });
  }
});

test('a disk that has been emptied, or is longer, is another one', async () => {
  const samples = await sampleDisk(await opened('disk.raw'));
  await images.raw('empty.raw', 200 * MiB, []);
  expect(await proveSameDisk(await opened('empty.raw'), samples)).toMatchObject({ verdict: 'different' });
  await images.raw('longer.raw', 201 * MiB, []);
  expect(await proveSameDisk(await opened('longer.raw'), samples)).toMatchObject({ verdict: 'different' });
});

test('empty disks prove nothing, and samples that name no place of the disk do no harm', async () => {
  await images.raw('empty.raw', 200 * MiB, []);
  const empty = await opened('empty.raw');
  expect(await proveSameDisk(empty, await sampleDisk(empty))).toEqual({
    verdict: 'unproven',
    compared: 0,
    differing: [],
  });
  const hostile = [-1, 2 ** 60].map((offsetBytes) => ({ offsetBytes, lengthBytes: 2 ** 40, digest: 'ff' }));
  expect(await proveSameDisk(empty, { lengthBytes: 200 * MiB, samples: hostile })).toMatchObject({
    verdict: 'different',
    compared: 2,
  });
  await images.raw('tiny.raw', 1000, [[0, 1000]]);
  const tiny = await opened('tiny.raw');
  expect(await proveSameDisk(tiny, await sampleDisk(tiny))).toMatchObject({ verdict: 'same', compared: 1 });
});
