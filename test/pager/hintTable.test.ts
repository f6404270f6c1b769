import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { HintTable } from '../../pager/hintTable.js';
import { groupPages, pageBytes } from '../../pager/pageGroups.js';
import { pageOf } from './memory.js';

/** Pages, of which some have changed. */
function pages(from: number, count: number, changed: readonly number[] = []): Buffer {
  const all = Array.from({ length: count }, (_, at) => pageOf(from + at, changed.includes(from + at) ? 2 : 1));
  return Buffer.concat(all);
}

describe('of three groups, of which the second has hints from its third page on', () => {
  let table: HintTable;
  /** What has become of all pages of a group: `=` the same, `.` not. */
  const all = (group: number, changed: readonly number[] = []) =>
    table
      .compare(group, 0, groupPages, pages(0, groupPages, changed))
      .map(({ from, to, isHeld }) => (isHeld ? '=' : '.').repeat(to - from))
      .join('');

  beforeEach(() => {
    table = new HintTable(3);
    table.set(1, 2, 10, pages(2, 10));
  });

  test('a group has what it was given, and the others nothing', () => {
    expect([0, 1, 2].map((group) => table.countOf(group))).toEqual([0, 10, 0]);
    expect(table.startOf(1)).toBe(2);
    expect(table.pages).toBe(10);
    expect([0, 1, 2].map((group) => all(group))).toEqual(['................', '..==========....', '................']);
  });

  test('the pages are found where they begin in what was read', () => {
    table.set(0, 5, 4, Buffer.concat([Buffer.alloc(3 * pageBytes, 9), pages(5, 4)]), 3 * pageBytes);
    expect(all(0)).toBe('.....====.......');
    expect(table.isSame(0, 5, 4, Buffer.concat([Buffer.alloc(100), pages(5, 4)]), 100)).toBe(true);
  });

  test.each<[string, number[], boolean]>([
    ['the same', [], true],
    ['another first page', [2], false],
    ['another page among them', [6], false],
    ['another last page', [11], false],
  ])('they are the same only as a whole: %s', (_, changed, isSame) => {
    expect(table.isSame(1, 2, 10, pages(2, 10, changed), 0)).toBe(isSame);
  });

  test('they are not the same where there are more of them, or fewer', () => {
    expect(table.isSame(1, 2, 9, pages(2, 9), 0)).toBe(false);
    expect(table.isSame(1, 3, 9, pages(3, 9), 0)).toBe(false);
    expect(table.isSame(1, 2, 11, pages(2, 11), 0)).toBe(false);
    expect(table.isSame(1, 1, 11, pages(1, 11), 0)).toBe(false);
    expect(table.isSame(0, 2, 10, pages(2, 10), 0)).toBe(false);
  });

  test.each<[string, number[], [from: number, to: number, isHeld: boolean][]]>([
    ['none', [], [[0, 10, true]]],
    [
      'the first',
      [2],
      [
        [0, 1, false],
        [1, 10, true],
      ],
    ],
    [
      'one among them',
      [6],
      [
        [0, 4, true],
        [4, 5, false],
        [5, 10, true],
      ],
    ],
    [
      'the last',
      [11],
      [
        [0, 9, true],
        [9, 10, false],
      ],
    ],
    [
      'some, two of them beside each other',
      [2, 5, 6, 11],
      [
        [0, 1, false],
        [1, 3, true],
        [3, 5, false],
        [5, 9, true],
        [9, 10, false],
      ],
    ],
    ['all', [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [[0, 10, false]]],
  ])('the pages that have changed are told from the others: %s', (_, changed, stretches) => {
    const found = table.compare(1, 2, 10, pages(2, 10, changed));
    expect(found).toEqual(stretches.map(([from, to, isHeld]) => ({ from, to, isHeld })));
    expect(table.pages).toBe(10);
  });

  test('pages that were not hinted are not held, whatever they have', () => {
    expect(all(1, [3])).toBe('..=.========....');
    expect(table.compare(1, 0, 2, pages(0, 2))).toEqual([{ from: 0, to: 2, isHeld: false }]);
    expect(table.compare(1, 12, 4, pages(12, 4))).toEqual([{ from: 0, to: 4, isHeld: false }]);
    expect(table.compare(2, 2, 10, pages(2, 10))).toEqual([{ from: 0, to: 10, isHeld: false }]);
    // What a group had before counts no longer.
    table.set(1, 6, 2, pages(6, 2));
    expect(all(1)).toBe('......==........');
  });

  test('a page is not the same as another one of its group', () => {
    expect(table.compare(1, 3, 5, pages(4, 5))).toEqual([{ from: 0, to: 5, isHeld: false }]);
  });

  test('there are no stretches of no pages', () => {
    expect(table.compare(1, 2, 0, Buffer.alloc(0))).toEqual([]);
    expect(table.compare(0, 0, 0, Buffer.alloc(0))).toEqual([]);
  });

  test('pages before another one are forgotten, and those from it on are not', () => {
    table.set(0, 0, groupPages, pages(0, groupPages));
    const left = [0, 2, 3, 11, 12].map((start) => {
      table.clearBefore(1, start);
      return [all(1), table.pages - groupPages];
    });
    expect(left).toEqual([
      ['..==========....', 10],
      ['..==========....', 10],
      ['...=========....', 9],
      ['...........=....', 1],
      ['................', 0],
    ]);
    table.clearBefore(1, groupPages);
    table.clearBefore(2, groupPages);
    expect(table.pages).toBe(groupPages);
    expect(all(0)).toBe('='.repeat(groupPages));
    table.set(1, 0, 3, pages(0, 3));
    expect(all(1)).toBe('===.............');
    expect(table.pages).toBe(groupPages + 3);
  });

  test('what is forgotten counts once', () => {
    table.set(2, 0, groupPages, pages(0, groupPages));
    table.clear(1);
    table.clear(1);
    table.clearBefore(1, groupPages);
    expect(table.countOf(1)).toBe(0);
    expect(table.pages).toBe(groupPages);
    expect([1, 2].map((group) => all(group))).toEqual(['................', '='.repeat(groupPages)]);
    table.set(2, 4, 1, pages(4, 1));
    expect(table.pages).toBe(1);
    table.set(1, 2, 10, pages(2, 10));
    expect(table.pages).toBe(11);
    table.clearAll();
    expect(table.pages).toBe(0);
    expect([1, 2].map((group) => all(group))).toEqual(['................', '................']);
    table.set(1, 0, 4, pages(0, 4));
    expect(table.pages).toBe(4);
  });
});

test('a table knows of each page what it was given last, whatever is forgotten', () => {
  const group = fc.nat({ max: 1 });
  const version = fc.array(fc.integer({ min: 1, max: 2 }), { minLength: groupPages, maxLength: groupPages });
  const step = fc.oneof(
    fc.record({
      ...{ do: fc.constant('set' as const), group, version },
      ...{ start: fc.nat({ max: groupPages - 1 }), count: fc.integer({ min: 1, max: groupPages }) },
    }),
    fc.record({ do: fc.constant('before' as const), group, start: fc.nat({ max: groupPages }) }),
    fc.record({ do: fc.constant('clear' as const), group }),
  );
  const bytesOf = (versions: readonly number[]) => Buffer.concat(versions.map((one, page) => pageOf(page, one)));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), version, (steps, now) => {
      const table = new HintTable(2);
      const known = [new Map<number, number>(), new Map<number, number>()];
      for (const one of steps) {
        const pagesOf = known[one.group]!;
        if (one.do === 'set') {
          const end = Math.min(groupPages, one.start + one.count);
          table.set(one.group, one.start, end - one.start, bytesOf(one.version), one.start * pageBytes);
          pagesOf.clear();
          for (let page = one.start; page < end; page++) pagesOf.set(page, one.version[page]!);
        } else if (one.do === 'before') {
          table.clearBefore(one.group, one.start);
          for (const page of [...pagesOf.keys()]) if (page < one.start) pagesOf.delete(page);
        } else {
          table.clear(one.group);
          pagesOf.clear();
        }
        expect(table.pages).toBe(known[0]!.size + known[1]!.size);
      }
      for (const [at, pagesOf] of known.entries()) {
        const stretches = table.compare(at, 0, groupPages, bytesOf(now));
        const held = stretches.flatMap(({ from, to, isHeld }) => Array<boolean>(to - from).fill(isHeld));
        expect(held).toEqual(now.map((one, page) => pagesOf.get(page) === one));
        for (const [place, { from, isHeld }] of stretches.entries())
          if (place > 0) expect([stretches[place - 1]!.to, stretches[place - 1]!.isHeld]).toEqual([from, !isHeld]);
      }
    }),
    { numRuns: 200 },
  );
});
