import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageBitmap } from '../../../relay/destination/postcopy/pageBitmap.js';

const pages = 200;
const run = fc
  .tuple(fc.boolean(), fc.integer({ min: 0, max: pages - 1 }), fc.integer({ min: 0, max: pages }))
  .map(([isSet, page, count]) => ({ isSet, page, count: Math.min(count, pages - page) }));

describe('a bitmap of pages', () => {
  it('holds what was set and not cleared since', () => {
    fc.assert(
      fc.property(fc.array(run), run, (changes, { isSet, page, count }) => {
        const bitmap = new PageBitmap(pages);
        const expected = new Array<boolean>(pages).fill(false);
        for (const change of changes) {
          if (change.isSet) bitmap.set(change.page, change.count);
          else bitmap.clear(change.page, change.count);
          expected.fill(change.isSet, change.page, change.page + change.count);
        }
        expect(expected.map((_, at) => bitmap.has(at))).toEqual(expected);
        expect(bitmap.count).toBe(expected.filter(Boolean).length);
        expect(bitmap.countIn(page, count)).toBe(expected.slice(page, page + count).filter(Boolean).length);
        const found = expected.indexOf(isSet, page);
        const end = page + count;
        expect(bitmap.find(isSet, page, end)).toBe(found === -1 || found > end ? end : found);
      }),
    );
  });

  it('takes over the bits of another, and none beyond its end', () => {
    const bitmap = new PageBitmap(70);
    bitmap.set(3, 1);
    bitmap.setFrom(Buffer.from('01000080 00000000 ffffffff ffffffff'.replaceAll(' ', ''), 'hex'));
    expect(Array.from({ length: 96 }, (_, at) => at).filter((at) => bitmap.has(at))).toEqual([
      ...[0, 3, 31],
      ...[64, 65, 66, 67, 68, 69],
    ]);
    expect(bitmap.count).toBe(9);
  });
});
