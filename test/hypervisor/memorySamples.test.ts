import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { GpaRange } from '../../hypervisor/gpaMap.js';
import { lookAt, runsToLookAt } from '../../hypervisor/memorySamples.js';

const pageBytes = 4096;
const mib = 1024 * 1024;

const ranges: readonly GpaRange[] = [
  { gpaStart: 0, lengthBytes: 640 * 1024, block: 'pc.ram', blockOffset: 0 },
  { gpaStart: mib, lengthBytes: 255 * mib, block: 'pc.ram', blockOffset: mib },
  { gpaStart: 0xe000_0000, lengthBytes: pageBytes, block: 'vga', blockOffset: 0 },
];

describe('runs of pages to look at', () => {
  test('are one page in 64, in every range, and stand for all of it', () => {
    const runs = runsToLookAt(ranges);
    expect(runs).toHaveLength(1 + 255 + 1);
    expect(runs.reduce((sum, { pages, weight }) => sum + pages * weight, 0)).toBeCloseTo(160 + 255 * 256 + 1);
    expect(runs.at(-1)).toEqual({ gpa: 0xe000_0000, block: 'vga', page: 0, pages: 1, weight: 1 });
  });

  test('are in their stretch, wherever chance puts them', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 0.999999, noNaN: true }), (chance) => {
        for (const { gpa, block, page, pages } of runsToLookAt(ranges, () => chance)) {
          const range = ranges.find((each) => gpa >= each.gpaStart && gpa < each.gpaStart + each.lengthBytes)!;
          expect(block).toBe(range.block);
          expect(page * pageBytes - range.blockOffset).toBe(gpa - range.gpaStart);
          expect(gpa + pages * pageBytes).toBeLessThanOrEqual(range.gpaStart + range.lengthBytes);
        }
      }),
    );
  });

  test('are no more of a guest that is large', () => {
    const large = { gpaStart: 0, lengthBytes: 2 ** 40, block: 'pc.ram', blockOffset: 0 };
    const runs = runsToLookAt([large]);
    expect(runs).toHaveLength(512);
    expect(runs.reduce((sum, { pages, weight }) => sum + pages * weight, 0)).toBe(2 ** 28);
  });

  test('are none of a guest whose memory nobody has found', () => {
    expect(runsToLookAt([])).toEqual([]);
  });
});

describe('a look at a run', () => {
  const run = { gpa: 5 * pageBytes, block: 'pc.ram', page: 5, pages: 4, weight: 64 };
  /** A page is filled with its number; every other one is zero. */
  const memory = {
    async load(gpa: number, into: Buffer): Promise<boolean> {
      for (let at = 0; at < into.length; at += pageBytes) {
        const page = (gpa + at) / pageBytes;
        into.fill(page % 2 === 0 ? 0 : page, at, at + pageBytes);
      }
      return gpa < 100 * pageBytes;
    },
  };

  test('finds what is not zero, and what that takes together', async () => {
    const asked: Buffer[] = [];
    const found = await lookAt(memory, run, (pages) => {
      asked.push(Buffer.from(pages));
      return 100;
    });
    expect(found).toMatchObject({ pages: 2, bytes: 100 });
    expect(asked).toEqual([Buffer.concat([Buffer.alloc(pageBytes, 5), Buffer.alloc(pageBytes, 7)])]);
  });

  test('marks pages by what they hold', async () => {
    const { marks } = (await lookAt(memory, run, () => 1))!;
    expect(marks).toHaveLength(4);
    expect(marks[1]).toBe(marks[3]);
    expect(new Set(marks).size).toBe(3);
  });

  test('does not ask what nothing takes', async () => {
    const never = () => {
      throw new Error('asked');
    };
    expect(await lookAt(memory, { ...run, gpa: 6 * pageBytes, pages: 1 }, never)).toMatchObject({ pages: 0, bytes: 0 });
  });

  test('knows nothing of what cannot be read', async () => {
    expect(await lookAt(memory, { ...run, gpa: 200 * pageBytes }, () => 1)).toBeNull();
  });
});
