import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type BlockSize, MemoryDigest } from '../../relay/digest.js';

const pageBytes = 4096;
/** More than one piece of the table, and a last one that is short. */
const blocks: readonly BlockSize[] = [
  { name: 'pc.ram', lengthBytes: 10_000 * pageBytes },
  { name: 'empty', lengthBytes: 0 },
  { name: 'rom', lengthBytes: 3 * pageBytes },
];

describe('the root over all pages', () => {
  test('is the same whenever, and however often, parts of it were folded before', () => {
    const write = fc.record({
      block: fc.constantFrom(0, 2),
      place: fc.nat(9_990),
      count: fc.integer({ min: 0, max: 64 }),
      fill: fc.option(fc.nat(255)),
      folds: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(write, { maxLength: 30 }), (writes) => {
        const folding = new MemoryDigest(blocks);
        const plain = new MemoryDigest(blocks);
        for (const { block, place, count, fill, folds } of writes) {
          const page = block === 0 ? place : 0;
          const most = block === 0 ? Math.min(count, 10_000 - page) : Math.min(count, 3);
          const run = randomBytes(16);
          for (const digest of [folding, plain]) {
            if (fill === null) digest.setRun(block, page, 0, most, run);
            else digest.setFill(block, page, most, fill);
          }
          for (let fold = 0; fold < folds; fold++) folding.foldRested();
          if (folds === 3) folding.fold();
        }
        expect(folding.root().equals(plain.root())).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test('changes with any page, also one that was folded before', () => {
    for (const page of [0, 4095, 4096, 9_999]) {
      const digest = new MemoryDigest(blocks);
      for (let call = 0; call < 4; call++) digest.foldRested();
      const before = digest.root();
      digest.setRun(0, page, 0, 1, randomBytes(16));
      const after = digest.root();
      expect(after.equals(before)).toBe(false);
      digest.setFill(0, page, 1, 7);
      expect(digest.root().equals(after)).toBe(false);
    }
  });

  test('of a guest without memory can be taken, and folded in the background', () => {
    const digest = new MemoryDigest([]);
    using _folding = digest.foldInBackground();
    digest.foldRested();
    expect(digest.root()).toHaveLength(32);
  });
});
