import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CacheMap, type GpaRange, TeleportMap } from '../../../relay/source/teleportMap.js';

const pageBytes = 4096;

interface Run {
  readonly pfn: number;
  readonly count: number;
  readonly disk: number;
  readonly diskOffsetBytes: number;
}

function cacheMap(runs: readonly Run[], gpaMap: readonly GpaRange[], diskIndexes: readonly number[]): CacheMap {
  return {
    runs: {
      count: runs.length,
      pfn: Float64Array.from(runs, ({ pfn }) => pfn),
      pageCount: Uint32Array.from(runs, ({ count }) => count),
      disk: Uint16Array.from(runs, ({ disk }) => disk),
      diskOffsetBytes: Float64Array.from(runs, ({ diskOffsetBytes }) => diskOffsetBytes),
    },
    gpaMap,
    diskIndexes,
  };
}

/** Where each page of each block is, found page by page. */
function naive({ runs, gpaMap, diskIndexes }: CacheMap, blocks: readonly { name: string; lengthBytes: number }[]) {
  const places = new Map<string, readonly [disk: number, diskOffsetBytes: number]>();
  for (let run = 0; run < runs.count; run++) {
    for (let page = 0; page < runs.pageCount[run]!; page++) {
      const gpa = (runs.pfn[run]! + page) * pageBytes;
      const range = gpaMap.find(({ gpaStart, lengthBytes }) => gpa >= gpaStart && gpa < gpaStart + lengthBytes);
      if (range === undefined) continue;
      const block = blocks.findIndex(({ name }) => name === range.block);
      const at = gpa - range.gpaStart + range.blockOffset;
      const disk = diskIndexes[runs.disk[run]!] ?? -1;
      if (block < 0 || disk < 0 || at + pageBytes > blocks[block]!.lengthBytes) continue;
      places.set(`${block}/${at / pageBytes}`, [disk, runs.diskOffsetBytes[run]! + page * pageBytes]);
    }
  }
  return places;
}

function found(map: TeleportMap, block: number, page: number): readonly [number, number] | null {
  return map.find(block, page) ? [map.disk, map.diskOffsetBytes] : null;
}

/** Runs as the agent's decoder gives them: ascending, without overlaps. */
const runs = fc
  .array(
    fc.record({
      gap: fc.nat(20),
      count: fc.integer({ min: 1, max: 60 }),
      disk: fc.nat(4),
      sector: fc.nat({ max: 2 ** 38 }),
    }),
    { maxLength: 30 },
  )
  .map((pieces) => {
    let pfn = 0;
    return pieces.map(({ gap, count, disk, sector }): Run => {
      const run = { pfn: pfn + gap, count, disk, diskOffsetBytes: sector * 512 };
      pfn = run.pfn + count;
      return run;
    });
  });

/** RAM with holes, cut among blocks, in any order; one range's block is not in the stream. */
const layout = fc
  .array(
    fc.record({
      hole: fc.nat(30),
      pages: fc.integer({ min: 1, max: 100 }),
      block: fc.constantFrom('pc.ram', 'dimm0', 'vga'),
      skip: fc.nat(20),
    }),
    { maxLength: 6 },
  )
  .map((pieces) => {
    let gpa = 0;
    const used = new Map<string, number>();
    const ranges = pieces.map(({ hole, pages, block, skip }): GpaRange => {
      const at = (used.get(block) ?? 0) + skip;
      const range = {
        gpaStart: (gpa + hole) * pageBytes,
        lengthBytes: pages * pageBytes,
        block,
        blockOffset: at * pageBytes,
      };
      gpa += hole + pages;
      used.set(block, at + pages);
      return range;
    });
    return ranges.toReversed();
  });

const blocks = [
  { name: 'pc.ram', lengthBytes: 200 * pageBytes },
  { name: 'dimm0', lengthBytes: 64 * pageBytes },
  { name: 'pc.bios', lengthBytes: pageBytes },
];

describe('the teleport map', () => {
  test('finds exactly the pages that a look at every single page finds', () => {
    fc.assert(
      fc.property(runs, layout, fc.array(fc.integer({ min: -1, max: 3 }), { maxLength: 5 }), (all, gpaMap, disks) => {
        const map = cacheMap(all, gpaMap, disks);
        const places = naive(map, blocks);
        const teleport = new TeleportMap(blocks, map);
        expect(pagesOf(teleport)).toBe(places.size);
        for (const [block, { lengthBytes }] of blocks.entries())
          for (let page = 0; page < lengthBytes / pageBytes; page++)
            expect(found(teleport, block, page)).toEqual(places.get(`${block}/${page}`) ?? null);
      }),
      { numRuns: 200 },
    );
  });

  test('finds the same in any order of asking, and each page once', () => {
    fc.assert(
      fc.property(
        runs,
        layout,
        fc.array(fc.tuple(fc.nat(2), fc.nat(199)), { maxLength: 300 }),
        (all, gpaMap, asked) => {
          const map = cacheMap(all, gpaMap, [0, 1, -1, 2, 3]);
          const places = naive(map, blocks);
          const teleport = new TeleportMap(blocks, map);
          const before = new Set<string>();
          for (const [block, number] of asked) {
            const page = number % (blocks[block]!.lengthBytes / pageBytes);
            const name = `${block}/${page}`;
            expect(found(teleport, block, page)).toEqual(before.has(name) ? null : (places.get(name) ?? null));
            before.add(name);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  test('tells what it holds as often as it is asked, and is none the wiser', () => {
    fc.assert(
      fc.property(runs, layout, (all, gpaMap) => {
        const map = cacheMap(all, gpaMap, [0, 1, -1, 2, 3]);
        const places = naive(map, blocks);
        const teleport = new TeleportMap(blocks, map);
        for (const [block, { lengthBytes }] of blocks.entries())
          for (let page = 0; page < lengthBytes / pageBytes; page++)
            for (let time = 0; time < 2; time++)
              expect(teleport.holds(block, page)).toBe(places.has(`${block}/${page}`));
        expect(pagesOf(teleport)).toBe(places.size);
        for (const name of places.keys()) {
          const [block, page] = name.split('/').map(Number) as [number, number];
          expect(teleport.find(block, page)).toBe(true);
          expect(teleport.holds(block, page)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
    expect(new TeleportMap(blocks, cacheMap([], [], [])).holds(9, 0)).toBe(false);
  });

  test('knows the hole below 4 GiB: what follows it in memory is elsewhere in the block', () => {
    const gib = 2 ** 30;
    const gpaMap = [
      { gpaStart: 0, lengthBytes: 2 * gib, block: 'pc.ram', blockOffset: 0 },
      { gpaStart: 4 * gib, lengthBytes: 4 * gib, block: 'pc.ram', blockOffset: 2 * gib },
    ];
    const across = { pfn: (4 * gib) / pageBytes - 2, count: 4, disk: 0, diskOffsetBytes: 0 };
    const map = new TeleportMap(
      [{ name: 'pc.ram', lengthBytes: 6 * gib }],
      cacheMap([{ pfn: (2 * gib) / pageBytes - 1, count: 3, disk: 0, diskOffsetBytes: 512 }, across], gpaMap, [7]),
    );
    const border = (2 * gib) / pageBytes;
    expect(pagesOf(map)).toBe(3);
    expect(found(map, 0, border - 1)).toEqual([7, 512]);
    expect(found(map, 0, border)).toEqual([7, 2 * pageBytes]);
    expect(found(map, 0, border + 1)).toEqual([7, 3 * pageBytes]);
    expect(found(map, 0, border + 2)).toBeNull();
  });

  test('whatever a lying map says, finds only pages of the guest and places that a reference can name', () => {
    const lie = fc.record({
      pfn: fc.oneof(fc.nat(300), fc.constantFrom(2 ** 31, 2 ** 52)),
      count: fc.oneof(fc.nat(300), fc.constant(0xffffffff)),
      disk: fc.nat(0xffff),
      diskOffsetBytes: fc.oneof(fc.nat(1e9), fc.constantFrom(2 ** 48 - 4096, 2 ** 48, 2 ** 53, 2 ** 63)),
    });
    fc.assert(
      fc.property(fc.array(lie, { maxLength: 20 }), layout, (lies, gpaMap) => {
        const teleport = new TeleportMap(blocks, cacheMap(lies, gpaMap, [0, 1, 2]));
        for (const [block, { lengthBytes }] of blocks.entries())
          for (let page = 0; page < lengthBytes / pageBytes; page++) {
            const place = found(teleport, block, page);
            if (place === null) continue;
            expect(place[0]).toBeLessThan(3);
            expect(place[1] + pageBytes).toBeLessThanOrEqual(2 ** 48);
            expect(place[1]).toBeGreaterThanOrEqual(0);
          }
      }),
      { numRuns: 200 },
    );
  });

  test('of nothing finds nothing', () => {
    const map = new TeleportMap(blocks, cacheMap([], [], []));
    expect(pagesOf(map)).toBe(0);
    expect(map.find(0, 0)).toBe(false);
    expect(map.find(2, 0)).toBe(false);
  });
});

function pagesOf(map: TeleportMap): number {
  let pages = 0;
  for (const { count } of map.runs()) pages += count;
  return pages;
}
