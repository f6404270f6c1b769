import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compress } from 'zstd-napi';
import { RelayError } from '../../../relay/errors.js';
import {
  BatchBuilder,
  decodeBatch,
  maxBatchPages,
  maxReferencePages,
  packPages,
  recordKind,
  unpackPages,
} from '../../../relay/link/batch.js';
import { decodeWireBatch, encodeWireBatch, pageOf, type WireRecord } from '../wire.js';

const pageBytes = 4096;
const blockPages = [4096, 64, 1];

const operation = fc.oneof(
  fc.record({ kind: fc.constant('fill' as const), page: fc.nat(4095), fill: fc.nat(255) }),
  fc.record({ kind: fc.constant('page' as const), page: fc.nat(4095), fill: fc.nat(255) }),
  fc.record({
    kind: fc.constant('reference' as const),
    page: fc.nat(4000),
    count: fc.integer({ min: 1, max: maxReferencePages }),
    disk: fc.nat(0xffff),
    diskOffsetBytes: fc.nat({ max: 2 ** 48 - 1 }),
  }),
);

/** Each page's version as the batch gives it, one entry a page, in order. */
type Version = readonly (number | string)[];

function versionsOf(payload: Buffer): Version[] {
  const { records, pages } = decodeBatch(payload, blockPages);
  const versions: Version[] = [];
  let at = 0;
  for (const { kind, block, page, count, fill, disk, diskOffsetBytes, digest } of records) {
    if (kind === recordKind.reference) {
      versions.push(['reference', block, page, count, disk, diskOffsetBytes, digest!.toString('hex')]);
      continue;
    }
    for (let index = 0; index < count; index++) {
      const content = kind === recordKind.fill ? fill : pages[at]!;
      if (kind === recordKind.bytes) {
        expect(pages.subarray(at, at + pageBytes).equals(pageOf(content))).toBe(true);
        at += pageBytes;
      }
      versions.push([kind, block, page + index, content]);
    }
  }
  return versions;
}

describe('a batch', () => {
  test('gives back every page in the order in which it was put in', () => {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 100 }), fc.boolean(), (operations, compressPages) => {
        const builder = new BatchBuilder();
        const expected: Version[] = [];
        for (const each of operations) {
          if (builder.isFull) break;
          if (each.kind === 'fill') {
            builder.addFill(0, each.page, each.fill);
            expected.push([recordKind.fill, 0, each.page, each.fill]);
          } else if (each.kind === 'page') {
            builder.addPage(0, each.page, pageOf(each.fill), 0);
            expected.push([recordKind.bytes, 0, each.page, each.fill]);
          } else {
            const digest = randomBytes(16);
            const { page, count, disk, diskOffsetBytes } = each;
            const record = builder.addReference(0, page, count, disk, diskOffsetBytes, digest);
            expect(record).toBeLessThan(4096);
            expected.push(['reference', 0, page, count, disk, diskOffsetBytes, digest.toString('hex')]);
          }
        }
        expect(builder.isEmpty).toBe(false);
        expect(versionsOf(builder.take(compressPages))).toEqual(expected);
        expect(builder.isEmpty).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test('is written as documented: another reader of the grammar sees the same records', () => {
    const builder = new BatchBuilder();
    builder.addFill(1, 5, 0);
    builder.addFill(1, 6, 0);
    builder.addPage(0, 9, pageOf(3), 0);
    const digest = randomBytes(16);
    expect(builder.addReference(0, 10, 64, 2, 2 ** 47, digest)).toBe(2);
    const { encoding, records, pages } = decodeWireBatch(builder.take(false));
    expect(encoding).toBe(0);
    expect(records).toEqual([
      { kind: 0, fill: 0, block: 1, page: 5, count: 2 },
      { kind: 1, fill: 0, block: 0, page: 9, count: 1 },
      { kind: 2, fill: 0, block: 0, page: 10, count: 64, disk: 2, diskOffsetBytes: 2 ** 47, digest },
    ]);
    expect(pages.equals(pageOf(3))).toBe(true);
  });

  test('puts neighbouring fills into one record, and starts anew where block, page or byte differ', () => {
    const builder = new BatchBuilder();
    for (let page = 0; page < 3000; page++) builder.addFill(0, page, 0);
    expect(builder.take(true).length).toBeLessThan(100);
    builder.addFill(0, 0, 0);
    builder.addFill(0, 1, 1);
    builder.addFill(1, 2, 1);
    builder.addFill(1, 4, 1);
    expect(decodeBatch(builder.take(true), blockPages).records).toHaveLength(4);
  });

  test('compresses what can be compressed, and sends the rest as it is', () => {
    const build = (page: Buffer) => {
      const builder = new BatchBuilder();
      for (let at = 0; at < maxBatchPages; at++) builder.addPage(0, at, page, 0);
      expect(builder.isFull).toBe(true);
      const payload = builder.take(true);
      expect(decodeBatch(payload, blockPages).pages).toHaveLength(maxBatchPages * pageBytes);
      return payload.length;
    };
    expect(build(pageOf(7))).toBeLessThan(pageBytes);
    const builder = new BatchBuilder();
    builder.addPage(0, 0, randomBytes(pageBytes), 0);
    expect(builder.take(true)[0]).toBe(0);
  });

  test('takes pages from anywhere in a larger buffer', () => {
    const source = Buffer.concat([randomBytes(13), pageOf(9), randomBytes(50)]);
    const builder = new BatchBuilder();
    builder.addPage(2, 0, source, 13);
    expect(versionsOf(builder.take(false))).toEqual([[recordKind.bytes, 2, 0, 9]]);
  });
});

describe('a hostile batch', () => {
  const fill = (page: number, count: number, block = 0): WireRecord => ({ kind: 0, block, page, count });
  const bytes = (page: number, count: number): WireRecord => ({ kind: 1, page, count });
  const reference = (page: number, count: number): WireRecord => ({ kind: 2, page, count });
  const bomb = compress(Buffer.alloc(64 * 1024 * 1024));
  const refused: [string, Buffer][] = [
    ['nothing at all', Buffer.alloc(0)],
    ['half a header', Buffer.alloc(6)],
    ['a run of no pages', encodeWireBatch({ records: [fill(0, 0)] })],
    ['a run that begins beyond its block', encodeWireBatch({ records: [fill(4096, 1)] })],
    ['a run that ends beyond its block', encodeWireBatch({ records: [fill(4095, 2)] })],
    ['a run at the largest page number', encodeWireBatch({ records: [fill(0xffffffff, 0xffff)] })],
    ['a block that the guest does not have', encodeWireBatch({ records: [fill(0, 1, 3)] })],
    ['the largest block number', encodeWireBatch({ records: [fill(0, 1, 0xffff)] })],
    ['a record of an unknown kind', encodeWireBatch({ records: [{ kind: 3, page: 0, count: 1 }] })],
    ['more records announced than there are', encodeWireBatch({ records: [fill(0, 1)], recordCount: 2 })],
    ['all records announced and none there', encodeWireBatch({ records: [], recordCount: 0xffff })],
    ['a reference cut short', encodeWireBatch({ records: [reference(0, 1)] }).subarray(0, -1)],
    ['a reference to too many pages', encodeWireBatch({ records: [reference(0, maxReferencePages + 1)] })],
    ['pages without a record', encodeWireBatch({ records: [], pages: pageOf(0) })],
    ['a record without its pages', encodeWireBatch({ records: [bytes(0, 1)] })],
    ['pages cut short', encodeWireBatch({ records: [bytes(0, 1)], pages: pageOf(0) }).subarray(0, -1)],
    ['pages and more', Buffer.concat([encodeWireBatch({ records: [bytes(0, 1)], pages: pageOf(0) }), Buffer.of(0)])],
    [
      'more pages than a batch has',
      encodeWireBatch({ records: [bytes(0, 200)], pages: Buffer.alloc(200 * pageBytes) }),
    ],
    ['a length of four gigabytes', encodeWireBatch({ records: [bytes(0, 1)], rawBytes: 0xffffffff })],
    ['an unknown encoding', encodeWireBatch({ encoding: 2, records: [bytes(0, 1)], pages: pageOf(0) })],
    [
      'what is not zstd',
      encodeWireBatch({ encoding: 1, records: [bytes(0, 1)], pages: pageOf(0), rawBytes: pageBytes }),
    ],
    [
      'a zstd frame that becomes more',
      encodeWireBatch({ encoding: 1, records: [bytes(0, 1)], pages: bomb, rawBytes: pageBytes }),
    ],
    [
      'zstd that becomes nothing',
      encodeWireBatch({ encoding: 1, records: [bytes(0, 1)], pages: Buffer.alloc(0), rawBytes: pageBytes }),
    ],
  ];

  test.each(refused)('of %s is refused with a protocol error', (_, payload) => {
    expect(() => decodeBatch(payload, blockPages)).toThrow(
      expect.objectContaining({ name: 'RelayError', code: 'VMMIG_LINK_PROTOCOL' }),
    );
  });

  test('that has been damaged anywhere decodes to runs inside the blocks, or not at all', () => {
    const builder = new BatchBuilder();
    for (let page = 0; page < 8; page++) builder.addPage(0, page, pageOf(page), 0);
    builder.addFill(1, 3, 0);
    builder.addReference(0, 100, 4, 0, 4096, randomBytes(16));
    const sound = [builder.take(true)];
    builder.addPage(0, 3, randomBytes(pageBytes), 0);
    sound.push(builder.take(true));
    const damage = fc.record({
      which: fc.nat(1),
      at: fc.oneof(fc.nat(80), fc.nat(5000)),
      value: fc.nat(255),
      keep: fc.option(fc.nat(5000)),
    });
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 3 }), (damages) => {
        let payload = Buffer.from(sound[damages[0]!.which]!);
        for (const { at, value, keep } of damages) {
          if (payload.length > 0) payload[at % payload.length] = value;
          if (keep !== null) payload = payload.subarray(0, keep);
        }
        try {
          const { records, pages } = decodeBatch(payload, blockPages);
          let carried = 0;
          for (const { kind, block, page, count } of records) {
            expect(count).toBeGreaterThan(0);
            expect(page + count).toBeLessThanOrEqual(blockPages[block]!);
            if (kind === recordKind.bytes) carried += count;
          }
          expect(pages.length).toBe(carried * pageBytes);
        } catch (thrown) {
          if (!(thrown instanceof RelayError)) throw thrown;
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('made of garbage throws nothing but relay errors', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (garbage) => {
        try {
          decodeBatch(Buffer.from(garbage), blockPages);
        } catch (thrown) {
          if (!(thrown instanceof RelayError)) throw thrown;
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('cannot make the decoder allocate what it announces', () => {
    const before = process.memoryUsage().rss;
    const forged = Buffer.from(compress(Buffer.alloc(2 ** 20)));
    for (let run = 0; run < 50; run++) {
      for (const pages of [bomb, forged])
        expect(() =>
          decodeBatch(
            encodeWireBatch({ encoding: 1, records: [bytes(0, 128)], rawBytes: 128 * pageBytes, pages }),
            blockPages,
          ),
        ).toThrow(RelayError);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(60 * 1024 * 1024);
  });

  test('whose zstd header understates what is inside is refused', () => {
    // The content size of a frame with a single segment: its header is magic, descriptor, size.
    const frame = Buffer.from(compress(Buffer.alloc(32 * 1024 * 1024)));
    const descriptor = frame[4]!;
    const sizeAt = 5 + ((descriptor & 0x20) === 0 ? 1 : 0);
    expect(descriptor >> 6).toBe(2);
    frame.writeUInt32LE(pageBytes, sizeAt);
    expect(() =>
      decodeBatch(
        encodeWireBatch({ encoding: 1, records: [bytes(0, 1)], rawBytes: pageBytes, pages: frame }),
        blockPages,
      ),
    ).toThrow(RelayError);
  });

  test('with a second zstd frame behind the first is refused', () => {
    const pages = Buffer.concat([compress(pageOf(1)), compress(Buffer.alloc(8 * 1024 * 1024))]);
    expect(() =>
      decodeBatch(encodeWireBatch({ encoding: 1, records: [bytes(0, 1)], rawBytes: pageBytes, pages }), blockPages),
    ).toThrow(RelayError);
  });
});

describe('pages that travel alone', () => {
  test('come back, compressed or not', () => {
    for (const raw of [pageOf(0), randomBytes(64 * pageBytes), Buffer.alloc(64 * pageBytes, 'text ')]) {
      const packed = packPages(raw);
      expect(packed.length).toBeLessThanOrEqual(raw.length + 1);
      expect(unpackPages(packed[0]!, packed.subarray(1), raw.length).equals(raw)).toBe(true);
    }
  });

  test('of another length than asked for are refused', () => {
    const packed = packPages(pageOf(0));
    for (const rawBytes of [0, 4095, 4097, 2 ** 32])
      expect(() => unpackPages(packed[0]!, packed.subarray(1), rawBytes)).toThrow(RelayError);
    expect(() => unpackPages(255, packed.subarray(1), pageBytes)).toThrow(RelayError);
  });
});
