import { expect, test } from 'vitest';
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
