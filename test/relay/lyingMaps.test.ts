/** Whatever a cache map says, the guest arrives as it was: a lie costs the pages' bytes, and no more. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CacheMap } from '../../relay/source/teleportMap.js';
import { pageBytes, RelayRig } from './rig.js';

const pages = 512;
type Run = [pfn: number, count: number, diskPage: number];

/** Moves a guest of which the first half was on the disk once, a quarter of that changed since. */
async function move(map: CacheMap): Promise<RelayRig> {
  const disk = randomBytes(pages * pageBytes);
  const guest = Buffer.from(disk);
  for (let page = 0; page < pages; page++)
    if (page % 4 === 0 || page >= pages / 2) randomBytes(pageBytes).copy(guest, page * pageBytes);
  const rig = await RelayRig.start(pages, disk);
  rig.source.setCacheMap(map);
  const content = (page: number) => Buffer.from(guest.subarray(page * pageBytes, (page + 1) * pageBytes));
  await rig.send([Array.from({ length: pages }, (_, page): [number, Buffer] => [page, content(page)]), []]);
  await rig.moved();
  expect(rig.memory.equals(guest)).toBe(true);
  const { sent, restored, mismatched } = rig.destination.state.counters.pages;
  expect(sent + restored + mismatched).toBe(pages);
  return rig;
}

const each = (run: (at: number) => Run, count = pages) => Array.from({ length: count }, (_, at) => run(at));

describe('a guest arrives as it was with a map', () => {
  test.each<[string, Run[], boolean]>([
    ['that is right where the guest has not written', each((at) => [at, 1, at], pages / 2), true],
    ['that is a minute old', each((at) => [at, 1, at]), true],
    ['of another guest', each((at) => [at, 1, (at * 7 + 3) % pages]), false],
    ['with every offset off by one page', [[0, pages - 1, 1]], false],
    ['beyond the disk', [[0, pages, pages - 10]], false],
    ['far beyond the disk', [[0, pages, 2 ** 33]], false],
    [
      'beyond the memory',
      [
        [pages - 4, 1000, 0],
        [2 ** 31 - 64, 64, 0],
      ],
      false,
    ],
    ['that says the same again and again', each(() => [0, 256, 0], 50), false],
    ['of runs that overlap, and are right in part', each((at) => [at * 2, 64, at * 2], 200), true],
    ['of runs that contradict each other', each((at) => [0, 64, at], 100), false],
    ['of one place on the disk for everything', each((at) => [at, 1, 17]), false],
  ])('%s', async (_, runs, isOfUse) => {
    await using rig = await move(RelayRig.map(runs));
    const { restored } = rig.destination.state.counters.pages;
    // Two pages of different guests are hardly ever the same.
    if (!isOfUse) expect(restored).toBeLessThan(3);
    else expect(restored).toBeGreaterThan(100);
  });

  test('of disks that are not there, or in memory that is elsewhere', async () => {
    const map = RelayRig.map([[0, pages, 0]]);
    await using _other = await move({ ...map, diskIndexes: [-1] });
    await using _unknown = await move({ ...map, diskIndexes: [9] });
    const gpaMap = [{ gpaStart: 0, lengthBytes: 2 ** 40, block: 'pc.ram', blockOffset: 100 * pageBytes }];
    await using _shifted = await move({ ...map, gpaMap });
  });

  test('of anything at all', { timeout: 60_000 }, async () => {
    const run = fc.tuple(fc.nat(2 * pages), fc.integer({ min: 1, max: 300 }), fc.nat(2 * pages));
    await fc.assert(
      fc.asyncProperty(fc.array(run, { maxLength: 40 }), async (runs) => {
        await using _rig = await move(RelayRig.map(runs.map(([pfn, count, at]): Run => [pfn, count, at])));
      }),
      { numRuns: 12 },
    );
  });
});
