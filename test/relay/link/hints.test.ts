import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { packPages } from '../../../relay/link/batch.js';
import { decodeHints, decodeInPlace, encodeHints, encodeInPlace, type HintRun } from '../../../relay/link/hints.js';

const pagesOfBlock = [2 ** 20, 16, 2 ** 31 - 1];

/** Runs as a cache map has them: ascending, apart, anywhere on a disk. */
const runs: fc.Arbitrary<HintRun[]> = fc
  .array(
    fc.record({
      block: fc.constantFrom(0, 1, 2),
      page: fc.oneof(fc.nat(15), fc.nat(2 ** 20 - 1), fc.nat(2 ** 31 - 2)),
      count: fc.integer({ min: 1, max: 64 }),
      disk: fc.nat(2 ** 16 - 1),
      diskOffsetBytes: fc.nat(2 ** 31 - 1).map((sector) => sector * 512),
    }),
    { maxLength: 60 },
  )
  .map((found) => {
    const sorted = found.toSorted((left, right) => left.block - right.block || left.page - right.page);
    const ends = [0, 0, 0];
    return sorted.filter(({ block, page, count }) => {
      if (page < ends[block]! || page + count > pagesOfBlock[block]!) return false;
      ends[block] = page + count;
      return true;
    });
  });

describe('hints', () => {
  test('arrive as they were sent', () => {
    fc.assert(
      fc.property(runs, (sent) => {
        const received = encodeHints(sent).flatMap((payload) => decodeHints(payload, pagesOfBlock));
        expect(received).toEqual(sent);
      }),
    );
  });

  test('leave out memory that was named before', () => {
    const run = { block: 0, page: 10, count: 4, disk: 0, diskOffsetBytes: 0 };
    const [payload] = encodeHints([run, { ...run, page: 12 }, { ...run, page: 14 }]);
    expect(decodeHints(payload!, pagesOfBlock).map(({ page }) => page)).toEqual([10, 14]);
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['a length only', Buffer.alloc(4)],
    ['more than it may become', Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0xff]), packPages(Buffer.alloc(1))])],
    ['another length than it has', Buffer.concat([Buffer.from([0, 0, 0, 9]), packPages(Buffer.alloc(5))])],
    ['a number without an end', framed(Buffer.alloc(40, 0x80))],
    ['half a run', framed(Buffer.from([0, 0, 1]))],
    ['a block that there is not', framed(Buffer.from([9, 0, 1, 0, 0]))],
    ['pages beyond the block', framed(Buffer.from([1, 15, 2, 0, 0]))],
    ['no pages', framed(Buffer.from([0, 0, 0, 0, 0]))],
    ['a place before the disk', framed(Buffer.from([0, 0, 1, 0, 1]))],
  ])('of %s are refused', (_, payload) => {
    expect(() => decodeHints(payload, pagesOfBlock)).toThrow(expect.objectContaining({ code: 'VMMIG_LINK_PROTOCOL' }));
  });

  test('of any bytes at all are runs inside their blocks, or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        let decoded: HintRun[] = [];
        try {
          decoded = decodeHints(framed(Buffer.from(bytes)), pagesOfBlock);
        } catch (error) {
          expect(error).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
        }
        for (const { block, page, count, diskOffsetBytes } of decoded) {
          expect(page + count).toBeLessThanOrEqual(pagesOfBlock[block]!);
          expect(diskOffsetBytes).toBeGreaterThanOrEqual(0);
        }
      }),
    );
  });
});

test('a run in place is told with its digest, and nothing else is taken for it', () => {
  const run = { block: 3, page: 2 ** 31, digest: randomBytes(16) };
  expect(decodeInPlace(encodeInPlace(run))).toEqual(run);
  expect(() => decodeInPlace(Buffer.alloc(5))).toThrow(expect.objectContaining({ code: 'VMMIG_LINK_PROTOCOL' }));
});

function framed(runsBytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(runsBytes.length);
  return Buffer.concat([length, packPages(runsBytes)]);
}
