import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../../relay/errors.js';
import {
  encodeFrameHeader,
  type Frame,
  FrameDecoder,
  frameHeaderBytes,
  frameType,
  isOrdered,
  maxFramePayloadBytes,
} from '../../../relay/link/frames.js';
import { frameBytes } from '../peers.js';

const types = Object.values(frameType);
const frames = fc.array(
  fc.record({
    type: fc.constantFrom(...types),
    sequence: fc.integer({ min: 0, max: 0xffffffff }),
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
  { maxLength: 20 },
);

/** Cuts bytes into pieces of the given lengths, over and over. */
function* cut(bytes: Buffer, lengths: readonly number[]): Generator<Buffer> {
  for (let at = 0, piece = 0; at < bytes.length; piece++) {
    const length = lengths[piece % lengths.length]!;
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

function decode(chunks: Iterable<Buffer>): Frame[] {
  const decoder = new FrameDecoder();
  const decoded: Frame[] = [];
  for (const chunk of chunks)
    for (const frame of decoder.feed(chunk)) decoded.push({ ...frame, payload: Buffer.from(frame.payload) });
  return decoded;
}

describe('frames', () => {
  test('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1 }), (sent, lengths) => {
        const bytes = Buffer.concat(sent.map(({ type, sequence, payload }) => frameBytes(type, sequence, payload)));
        expect(decode(cut(bytes, lengths))).toEqual(sent);
      }),
      { numRuns: 200 },
    );
  });

  test('come out byte by byte, and with empty chunks in between', () => {
    const bytes = Buffer.concat([frameBytes(frameType.batch, 7, 'pages'), frameBytes(frameType.root, 8)]);
    const chunks = [...cut(bytes, [1])].flatMap((chunk) => [Buffer.alloc(0), chunk]);
    expect(decode(chunks).map(({ sequence, payload }) => [sequence, payload.toString()])).toEqual([
      [7, 'pages'],
      [8, ''],
    ]);
  });

  test('that are not complete are kept, and given back as they came', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), (payload, cutAt) => {
        const bytes = frameBytes(frameType.tail, 3, Buffer.from(payload));
        const part = bytes.subarray(0, cutAt % bytes.length);
        const decoder = new FrameDecoder();
        for (const chunk of cut(part, [5])) expect([...decoder.feed(chunk)]).toEqual([]);
        expect(decoder.takeRest().equals(part)).toBe(true);
        expect(decoder.takeRest()).toHaveLength(0);
      }),
    );
  });

  test('leave what follows the first one to whoever reads on', () => {
    const decoder = new FrameDecoder();
    const next = frameBytes(frameType.batch, 0, 'next');
    for (const frame of decoder.feed(Buffer.concat([frameBytes(frameType.welcome, 0, '{}'), next]))) {
      expect(frame.type).toBe(frameType.welcome);
      break;
    }
    expect(decoder.takeRest().equals(next)).toBe(true);
  });

  test('of any type up to the longest are taken, and longer ones refused by their header alone', () => {
    const longest = frameBytes(frameType.tail, 0, Buffer.alloc(maxFramePayloadBytes));
    expect(decode([longest])[0]!.payload).toHaveLength(maxFramePayloadBytes);
    for (const lengthBytes of [maxFramePayloadBytes + 1, 0x7fffffff, 0xffffffff])
      expect(() => decode([encodeFrameHeader(frameType.tail, 0, lengthBytes)])).toThrow(RelayError);
  });

  test('of an unknown type are refused before their payload has come', () => {
    for (let type = 0; type < 256; type++) {
      const feed = () => decode([encodeFrameHeader(type, 0, 1000)]);
      if ((types as number[]).includes(type)) expect(feed).not.toThrow();
      else expect(feed).toThrow(expect.objectContaining({ code: 'VMMIG_LINK_PROTOCOL' }));
    }
  });

  test('made of garbage end in a relay error or in nothing, never in anything else', () => {
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
      fc
        .tuple(fc.nat({ max: 2000 }), fc.constantFrom(...types), fc.uint8Array({ maxLength: 400 }))
        .map(([length, type, rest]) => Buffer.concat([encodeFrameHeader(type, 1, length), rest])),
    );
    fc.assert(
      fc.property(garbage, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (bytes, lengths) => {
        try {
          const frames = decode(cut(bytes, lengths));
          const taken = frames.reduce((sum, { payload }) => sum + frameHeaderBytes + payload.length, 0);
          expect(taken).toBeLessThanOrEqual(bytes.length);
        } catch (thrown) {
          expect(thrown).toMatchObject({ name: 'RelayError', code: 'VMMIG_LINK_PROTOCOL' });
        }
      }),
      { numRuns: 500 },
    );
  });

  test('are ordered exactly when they build up the guest', () => {
    const ordered = types.filter(isOrdered);
    const { blocks, raw, batch, endOfRam, tail, root, hints, remote, device, go, memory, ahead, packedTail } =
      frameType;
    const wanted = [blocks, raw, batch, endOfRam, tail, root, hints, remote, device, go, memory, ahead, packedTail];
    expect(ordered.toSorted((left, right) => left - right)).toEqual(wanted);
  });

  test('in single bytes take no more memory than a few times their length', () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const held = () => {
      gc();
      return process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
    };
    const bytes = frameBytes(frameType.tail, 0, Buffer.alloc(512 * 1024));
    const decoder = new FrameDecoder();
    const before = held();
    for (const byte of bytes.subarray(0, -1)) expect([...decoder.feed(Buffer.alloc(1, byte))]).toEqual([]);
    expect(held() - before).toBeLessThan(4 * bytes.length);
    expect([...decoder.feed(Buffer.alloc(1))]).toHaveLength(1);
  });

  test('in many small chunks take time in proportion to their length', () => {
    const bytes = frameBytes(frameType.tail, 0, Buffer.alloc(maxFramePayloadBytes));
    const elapsed = (length: number) => {
      const startMs = performance.now();
      expect(decode(cut(bytes, [length]))).toHaveLength(1);
      return performance.now() - startMs;
    };
    elapsed(4096);
    // 512 times as many chunks; joining them anew with each would take hours.
    expect(elapsed(8)).toBeLessThan(5000);
  });
});
