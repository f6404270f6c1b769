import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DiskError } from '../../disk/index.js';
import { Negotiation } from '../../disk/nbd/negotiation.js';
import { PendingRead } from '../../disk/nbd/pendingRead.js';
import { ReplyDecoder } from '../../disk/nbd/replies.js';
import {
  be,
  chunk,
  dataChunk,
  errorChunk,
  greeting,
  holeChunk,
  negotiation,
  optionReply,
  simpleReply,
} from './nbdServer.js';

const guardBytes = 8;
const guard = Buffer.alloc(guardBytes, 0xa5);

/** Reads that are under way, with buffers that show what is written beside them. */
class Reads {
  readonly reads: PendingRead[];
  readonly buffers: Buffer[];
  readonly finished = new Set<number>();

  constructor(ranges: readonly { readonly start: number; readonly end: number }[]) {
    this.buffers = ranges.map(({ start, end }) => Buffer.alloc(end - start + 2 * guardBytes, 0xa5));
    this.reads = ranges.map(({ start, end }, index) => {
      const target = this.buffers[index]!;
      return new PendingRead(start, end, [{ start, end, target, targetOffset: guardBytes }]);
    });
  }

  get(cookie: number): PendingRead | undefined {
    return this.finished.has(cookie) ? undefined : this.reads[cookie];
  }

  finish(cookie: number): void {
    this.finished.add(cookie);
  }

  /** What was read, and that nothing else was written. */
  contents(): Buffer[] {
    return this.buffers.map((buffer) => {
      expect(buffer.subarray(0, guardBytes)).toEqual(guard);
      expect(buffer.subarray(-guardBytes)).toEqual(guard);
      return buffer.subarray(guardBytes, -guardBytes);
    });
  }
}

interface Piece {
  readonly start: number;
  readonly bytes: Buffer;
  readonly isHole: boolean;
  readonly order: number;
}

/** A read, and the pieces that a server tells it in, in an order of their own. */
const answered = fc
  .record({
    start: fc.nat(2 ** 40),
    pieces: fc.array(
      fc.record({ bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }), isHole: fc.boolean(), order: fc.nat() }),
      { minLength: 1, maxLength: 6 },
    ),
    failsWith: fc.option(fc.string({ maxLength: 20, unit: 'grapheme-ascii' }), { freq: 4 }),
  })
  .map(({ start, pieces, failsWith }) => {
    let at = start;
    const placed: Piece[] = pieces.map(({ bytes, isHole, order }) => {
      const content = isHole ? Buffer.alloc(bytes.length) : Buffer.from(bytes);
      const piece = { start: at, bytes: content, isHole, order };
      at += content.length;
      return piece;
    });
    return { start, end: at, pieces: placed, failsWith };
  });

const exchange = fc.array(answered, { minLength: 1, maxLength: 4 });

/** All chunks, those of different reads between each other; the last one of a read says so. */
function encode(reads: readonly { readonly pieces: readonly Piece[]; readonly failsWith: string | null }[]): Buffer {
  const chunks = reads.flatMap(({ pieces }, cookie) => pieces.map((piece) => ({ piece, cookie })));
  chunks.sort((a, b) => a.piece.order - b.piece.order);
  const left = reads.map(({ pieces }) => pieces.length);
  return Buffer.concat(
    chunks.flatMap(({ piece: { start, bytes, isHole }, cookie }) => {
      left[cookie]! -= 1;
      const { failsWith } = reads[cookie]!;
      const isLast = left[cookie] === 0 && failsWith === null;
      const told = isHole ? holeChunk(cookie, start, bytes.length, isLast) : dataChunk(cookie, start, bytes, isLast);
      return left[cookie] === 0 && failsWith !== null ? [told, errorChunk(cookie, failsWith, true)] : [told];
    }),
  );
}

function feed(decoder: { feed(chunk: Buffer): unknown }, bytes: Buffer, cuts: readonly number[]): void {
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    decoder.feed(bytes.subarray(at, cut));
    at = cut;
  }
}

describe('replies', () => {
  test('mean the same wherever they are cut', () => {
    fc.assert(
      fc.property(exchange, fc.array(fc.nat(), { maxLength: 5 }), (said, places) => {
        const bytes = encode(said);
        const random = places.map((place) => place % bytes.length).sort((a, b) => a - b);
        const everywhere = Array.from(bytes.keys()).slice(1);
        for (const cuts of [[], random, everywhere]) {
          const reads = new Reads(said);
          feed(new ReplyDecoder(reads, true), bytes, cuts);
          expect(reads.finished.size).toBe(said.length);
          expect(reads.contents()).toEqual(said.map(({ pieces }) => Buffer.concat(pieces.map((piece) => piece.bytes))));
          for (const [index, { failsWith }] of said.entries())
            expect(reads.reads[index]!.failure?.code).toBe(failsWith === null ? undefined : 'VMMIG_DISK_READ');
        }
      }),
      { numRuns: 200 },
    );
  });

  test('without chunks mean the same wherever they are cut', () => {
    const data = Buffer.from('0123456789');
    const bytes = Buffer.concat([simpleReply(1, data), simpleReply(0, Buffer.alloc(0), 5), simpleReply(2, data)]);
    const ranges = [0, 100, 7].map((start) => ({ start, end: start + 10 }));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const reads = new Reads(ranges);
      feed(new ReplyDecoder(reads, false), bytes, [cut]);
      expect(reads.contents().slice(1)).toEqual([data, data]);
      expect(reads.reads.map(({ failure }) => failure?.code)).toEqual(['VMMIG_DISK_READ', undefined, undefined]);
    }
  });

  test('that are damaged give a DiskError, or other bytes, and nothing is written elsewhere', () => {
    fc.assert(
      fc.property(exchange, fc.nat(), fc.integer({ min: 1, max: 255 }), (said, place, change) => {
        const bytes = encode(said);
        bytes[place % bytes.length]! ^= change;
        const reads = new Reads(said);
        try {
          new ReplyDecoder(reads, true).feed(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DiskError);
        }
        reads.contents();
      }),
      { numRuns: 500 },
    );
  });

  test('that are noise give a DiskError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 100 }), fc.boolean(), (noise, structured) => {
        const decoder = new ReplyDecoder(new Reads([{ start: 0, end: 9 }]), structured);
        expect(() => decoder.feed(Buffer.from(noise))).toThrow(DiskError);
      }),
    );
  });

  test('about one range go to all who want a part of it', () => {
    const [a, b] = [Buffer.alloc(6), Buffer.alloc(6)];
    const read = new PendingRead(10, 30, [
      { start: 10, end: 14, target: a, targetOffset: 2 },
      { start: 12, end: 18, target: b, targetOffset: 0 },
    ]);
    const reads = { get: () => read, finish: () => {} };
    const decoder = new ReplyDecoder(reads, true);
    decoder.feed(
      Buffer.concat([
        dataChunk(0, 10, Buffer.from('abcdef')),
        holeChunk(0, 16, 14),
        chunk(0, 0, be(2, 0).subarray(2), true),
      ]),
    );
    expect([a.toString(), b.toString()]).toEqual(['\0\0abcd', 'cdef\0\0']);
  });
});

describe('a negotiation', () => {
  const whole = negotiation(12345, { min: 512 });
  const old = Buffer.concat([
    greeting(1),
    optionReply(8, 1),
    optionReply(7, 2 ** 31 + 1),
    be(8, 99),
    be(2, 1),
    Buffer.alloc(124),
  ]);

  test.each([
    ['by GO', whole, { sizeBytes: 12345, minBlockBytes: 512 }],
    ['by EXPORT_NAME', old, { sizeBytes: 99, structuredReplies: true }],
  ])('%s means the same wherever it is cut, and takes no more than its own', (_, said, result) => {
    for (let cut = 0; cut <= said.length; cut++) {
      const client = new Negotiation('');
      expect(client.feed(said.subarray(0, cut))).toBe(cut);
      expect(client.feed(Buffer.concat([said.subarray(cut), Buffer.from('more')]))).toBe(said.length - cut);
      expect(client.result).toMatchObject(result);
    }
  });

  test('that is damaged comes to an end or waits, and throws nothing but DiskErrors', () => {
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (place, change) => {
        const bytes = Buffer.from(whole);
        bytes[place]! ^= change;
        try {
          new Negotiation('').feed(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DiskError);
        }
      }),
    );
  });
});
