import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CacheMap, type CacheRuns, countPages } from '../../guest-agent/cacheMap.js';

type Run = [pfn: number, pages: number, disk: number, offsetPages: number];

function add(map: CacheMap, id: number, runs: Run[], tracked = true): void {
  map.beginGroup(id, tracked);
  for (const [pfn, pages, disk, offsetPages] of runs) map.run(pfn, pages, disk, offsetPages * 4096);
  map.endGroup();
}

function list(runs: CacheRuns): Run[] {
  return Array.from({ length: runs.count }, (_, i) => [
    runs.pfn[i]!,
    runs.pageCount[i]!,
    runs.disk[i]!,
    runs.diskOffsetBytes[i]! / 4096,
  ]);
}

describe('the cache map', () => {
  it('sorts runs by page and joins those that continue each other', () => {
    const map = new CacheMap();
    add(map, 1, [[100, 2, 0, 7]]);
    add(map, 2, [
      [10, 1, 1, 9],
      [102, 3, 0, 9],
      [105, 1, 1, 12],
    ]);
    expect(list(map.toRuns())).toEqual([
      [10, 1, 1, 9],
      [100, 5, 0, 7],
      [105, 1, 1, 12],
    ]);
    expect(countPages(map.toRuns())).toBe(7);
  });

  it('replaces a group that is reported again, and removes one that is no more', () => {
    const map = new CacheMap();
    add(map, 1, [[1, 1, 0, 1]]);
    add(map, 2, [[2, 1, 0, 5]]);
    add(map, 1, [[7, 1, 0, 1]]);
    map.remove(2);
    map.remove(99);
    expect(list(map.toRuns())).toEqual([[7, 1, 0, 1]]);
    add(map, 1, []);
    expect(map.toRuns().count).toBe(0);
    add(map, 3, [[3, 1, 0, 3]]);
    map.clear();
    expect(map.toRuns().count).toBe(0);
  });

  it('forgets groups that the agent does not keep track of when the next scan begins', () => {
    const map = new CacheMap();
    add(map, 1, [[1, 1, 0, 1]]);
    add(map, 2, [[5, 1, 0, 5]], false);
    add(map, 3, [[8, 1, 0, 8]], false);
    add(map, 3, [[9, 1, 0, 8]], true);
    map.beginChanges();
    expect(list(map.toRuns())).toEqual([
      [1, 1, 0, 1],
      [9, 1, 0, 8],
    ]);
  });

  it('drops what is beyond its limit, and says how much', () => {
    const map = new CacheMap(3);
    add(map, 1, [
      [1, 1, 0, 1],
      [3, 1, 0, 9],
    ]);
    add(map, 2, [
      [5, 1, 0, 3],
      [7, 10, 0, 40],
    ]);
    add(map, 3, [[30, 5, 0, 50]]);
    expect(list(map.toRuns())).toEqual([
      [1, 1, 0, 1],
      [3, 1, 0, 9],
      [5, 1, 0, 3],
    ]);
    expect(map.droppedPages).toBe(15);
  });

  it('never claims a page twice, and loses none that is claimed', () => {
    const run = fc.tuple(fc.nat(200), fc.integer({ min: 1, max: 20 }), fc.nat(2), fc.nat(50));
    fc.assert(
      fc.property(fc.array(fc.array(run, { maxLength: 5 }), { maxLength: 10 }), (groups) => {
        const map = new CacheMap();
        for (const [id, runs] of groups.entries()) add(map, id, runs);
        const claims = new Map<number, Set<string>>();
        for (const [pfn, pages, disk, offset] of groups.flat()) {
          for (let i = 0; i < pages; i++) {
            const places = claims.get(pfn + i) ?? new Set();
            claims.set(pfn + i, places.add(`${disk} ${offset + i}`));
          }
        }
        const seen = new Set<number>();
        let last = -1;
        for (const [pfn, pages, disk, offset] of list(map.toRuns())) {
          expect(pfn).toBeGreaterThan(last);
          last = pfn + pages - 1;
          for (let i = 0; i < pages; i++) {
            seen.add(pfn + i);
            expect(claims.get(pfn + i)).toContain(`${disk} ${offset + i}`);
          }
        }
        expect(seen).toEqual(new Set(claims.keys()));
      }),
    );
  });

  it('keeps its memory in proportion while groups are replaced over and over', () => {
    const map = new CacheMap();
    const before = process.memoryUsage().arrayBuffers;
    for (let round = 0; round < 2000; round++) {
      for (let id = 0; id < 10; id++) {
        add(
          map,
          id,
          Array.from({ length: 100 }, (_, i): Run => [id * 1000 + i * 2, 1, 0, round + i]),
        );
      }
    }
    expect(map.toRuns().count).toBe(1000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20e6);
  });
});
