import { describe, expect, test } from 'vitest';
import { HeldPages } from '../../pager/index.js';
import { digester, pageBytes, pageOf } from './memory.js';

function pages(from: number, count: number, version: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, at) => pageOf(from + at, version)));
}

test('what is held comes out once, for its own digest alone', () => {
  const held = new HeldPages(digester, 2 ** 20);
  const [old, now] = [pages(20, 4, 1), pages(20, 4, 2)];
  held.hold(1, 20, 4, old, 0);
  expect(held.take(1, 20, 4, digester.digest(now))).toBeNull();
  expect(held.take(1, 20, 4, digester.digest(old))).toBeNull();
  held.hold(1, 20, 4, old, 0);
  held.hold(1, 20, 4, now, 0);
  expect(held.take(0, 20, 4, digester.digest(now))).toBeNull();
  expect(held.take(1, 20, 4, digester.digest(now))?.equals(now)).toBe(true);
  expect(held.heldBytes).toBe(0);
});

test('a run that spans groups is held group by group, in a copy', () => {
  const held = new HeldPages(digester, 2 ** 20);
  const bytes = Buffer.concat([Buffer.alloc(pageBytes), pages(10, 30, 1)]);
  held.hold(0, 10, 30, bytes, pageBytes);
  bytes.fill(0);
  for (const [page, count] of [[10, 6] as const, [16, 16] as const, [32, 8] as const])
    expect(held.take(0, page, count, digester.digest(pages(page, count, 1)))?.length).toBe(count * pageBytes);
});

test('no more is held than allowed', () => {
  const held = new HeldPages(digester, 20 * pageBytes);
  held.hold(0, 0, 16, pages(0, 16, 1), 0);
  held.hold(0, 16, 16, pages(16, 16, 1), 0);
  expect(held.heldBytes).toBe(16 * pageBytes);
  expect(held.take(0, 16, 16, digester.digest(pages(16, 16, 1)))).toBeNull();
  held.hold(0, 0, 16, pages(0, 16, 2), 0);
  expect(held.take(0, 0, 16, digester.digest(pages(0, 16, 2)))).not.toBeNull();
  held.hold(0, 0, 16, pages(0, 16, 2), 0);
  held.clear();
  expect(held.heldBytes).toBe(0);
});

describe('a part of a group', () => {
  const take = (held: HeldPages, page: number, count: number, version = 1) =>
    held.take(0, page, count, digester.digest(pages(page, count, version)));

  test.each<[string, number, number, [page: number, count: number][]]>([
    ['the beginning', 16, 5, [[21, 11]]],
    [
      'the middle',
      20,
      5,
      [
        [16, 4],
        [25, 7],
      ],
    ],
    ['the end', 27, 5, [[16, 11]]],
  ])('is taken, and the rest stays: %s', (_, page, count, rest) => {
    const held = new HeldPages(digester, 2 ** 20);
    held.hold(0, 0, 48, pages(0, 48, 1), 0);
    expect(take(held, page, count)?.equals(pages(page, count, 1))).toBe(true);
    expect(held.heldBytes).toBe((48 - count) * pageBytes);
    expect(take(held, page, count)).toBeNull();
    let left = 48 - count;
    for (const [at, pagesLeft] of [...rest, [0, 16] as const, [32, 16] as const]) {
      expect(take(held, at, pagesLeft)?.equals(pages(at, pagesLeft, 1))).toBe(true);
      left -= pagesLeft;
      expect(held.heldBytes).toBe(left * pageBytes);
    }
    expect(left).toBe(0);
  });

  test('is taken of what is left, in any order', () => {
    const held = new HeldPages(digester, 2 ** 20);
    held.hold(0, 16, 16, pages(16, 16, 1), 0);
    for (const [at, page] of [24, 18, 31, 25, 16, 17, 30].entries()) {
      expect(take(held, page, 1)?.equals(pages(page, 1, 1))).toBe(true);
      expect(held.heldBytes).toBe((15 - at) * pageBytes);
    }
    expect(take(held, 19, 5)?.equals(pages(19, 5, 1))).toBe(true);
    expect(take(held, 26, 4)?.equals(pages(26, 4, 1))).toBe(true);
    expect(held.heldBytes).toBe(0);
  });

  test('with another digest is gone, and its neighbours are not', () => {
    const held = new HeldPages(digester, 2 ** 20);
    held.hold(0, 16, 16, pages(16, 16, 1), 0);
    expect(take(held, 20, 3, 2)).toBeNull();
    expect(held.heldBytes).toBe(13 * pageBytes);
    expect(take(held, 20, 3)).toBeNull();
    expect(held.heldBytes).toBe(13 * pageBytes);
    expect(take(held, 16, 4)?.equals(pages(16, 4, 1))).toBe(true);
    expect(take(held, 23, 9)?.equals(pages(23, 9, 1))).toBe(true);
    expect(held.heldBytes).toBe(0);
  });

  test('is not what is held only in part, or lies on both sides of what was taken', () => {
    const held = new HeldPages(digester, 2 ** 20);
    held.hold(0, 18, 10, pages(18, 10, 1), 0);
    for (const [page, count] of [[17, 4] as const, [26, 4] as const, [16, 16] as const, [26, 8] as const])
      expect(take(held, page, count)).toBeNull();
    expect(take(held, 22, 1)).not.toBeNull();
    expect(take(held, 21, 3)).toBeNull();
    expect(take(held, 18, 10)).toBeNull();
  });

  test('makes way, as what is left of it does, when the group is held again', () => {
    const held = new HeldPages(digester, 2 ** 20);
    held.hold(0, 16, 16, pages(16, 16, 1), 0);
    expect(take(held, 20, 3)).not.toBeNull();
    expect(take(held, 27, 1)).not.toBeNull();
    held.hold(0, 18, 6, pages(18, 6, 2), 0);
    expect(held.heldBytes).toBe(6 * pageBytes);
    for (const [page, count] of [[16, 2] as const, [24, 3] as const, [28, 4] as const])
      expect(take(held, page, count)).toBeNull();
    expect(held.heldBytes).toBe(6 * pageBytes);
    expect(take(held, 18, 6, 2)?.equals(pages(18, 6, 2))).toBe(true);
    expect(held.heldBytes).toBe(0);
  });

  test('makes room for as much as it was', () => {
    const held = new HeldPages(digester, 16 * pageBytes);
    held.hold(0, 0, 16, pages(0, 16, 1), 0);
    expect(take(held, 2, 7)).not.toBeNull();
    held.hold(0, 16, 8, pages(16, 8, 1), 0);
    expect(held.heldBytes).toBe(9 * pageBytes);
    held.hold(0, 16, 7, pages(16, 7, 1), 0);
    expect(held.heldBytes).toBe(16 * pageBytes);
    expect(take(held, 16, 7)).not.toBeNull();
    expect(take(held, 0, 2)).not.toBeNull();
    expect(take(held, 9, 7)).not.toBeNull();
    expect(held.heldBytes).toBe(0);
  });
});
