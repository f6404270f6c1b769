import { describe, expect, test } from 'vitest';
import { encodePlaced, PlacedPages } from '../../../relay/link/placed.js';

const pagesOfBlock = [16_000_000, 1, 500];

/** Runs of lengths that do not compress, so that there are several pieces. */
function scattered(pages: number): Uint32Array {
  const runs: number[] = [];
  let state = 1;
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 1 + Math.floor((state / 2 ** 32) * below);
  };
  for (let page = 0; page < pages - 8; ) {
    const count = next(4);
    runs.push(page, count);
    page += count + next(4);
  }
  return Uint32Array.from(runs);
}

describe('The pages that QEMU has', () => {
  const runs = [scattered(pagesOfBlock[0]!), new Uint32Array(), Uint32Array.of(0, 500)];
  const pieces = encodePlaced(runs);

  test('arrive in pieces, in any order', () => {
    expect(pieces.length).toBeGreaterThan(1);
    const placed = new PlacedPages(pagesOfBlock);
    for (const [at, piece] of [...pieces.entries()].reverse()) expect(placed.add(at, piece)).toBe(at === 0);
    for (let at = 0; at < 2000; at += 2) {
      expect(placed.has(0, runs[0]![at]!)).toBe(true);
      expect(placed.has(0, runs[0]![at]! + runs[0]![at + 1]!)).toBe(false);
    }
    expect(placed.has(1, 0)).toBe(false);
    expect(placed.has(2, 499)).toBe(true);
  });

  test.each<[string, number, Buffer]>([
    ['twice', 0, pieces[0]!],
    ['beyond the number of pieces', pieces.length, pieces[1]!],
    ['without a header', 1, Buffer.alloc(1)],
    ['of too many pieces', 1, Buffer.from([0xff, 0xff])],
  ])('are refused when a piece comes %s', (_, sequence, piece) => {
    const placed = new PlacedPages(pagesOfBlock);
    placed.add(0, pieces[0]!);
    expect(() => placed.add(sequence, piece)).toThrow(expect.objectContaining({ code: 'VMMIG_LINK_PROTOCOL' }));
  });
});
