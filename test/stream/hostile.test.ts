import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StreamDecoder, StreamError } from '../../stream/index.js';
import { be32, be64, command, HEADER, memSize, named, postcopyStream, precopyStream, section, u8 } from './bytes.js';
import { cut, decode } from './recorder.js';

const STREAMS = { 'pre-copy': precopyStream(), 'post-copy': postcopyStream() };

/** Cuts a stream where the sizes say; what is left comes in one piece. */
function* cutAt(stream: Buffer, sizes: readonly number[]): Generator<Buffer> {
  let at = 0;
  for (const size of sizes) {
    yield stream.subarray(at, at + size);
    at += size;
  }
  yield stream.subarray(at);
}

describe.each(Object.entries(STREAMS))('a %s stream', (_name, stream) => {
  const whole = decode([stream]);

  it('gives the same events wherever it is cut in two', () => {
    for (let at = 0; at <= stream.length; at += 1) {
      // Inside pages, one place is as good as another.
      if (at % 4096 > 400 && at % 61 !== 0) continue;
      expect(decode(cutAt(stream, [at]))).toEqual(whole);
    }
  });

  it('gives the same events byte by byte', () => {
    expect(decode(cut(stream, 1))).toEqual(whole);
  });

  it('gives the same events in any chunks, also empty ones', () => {
    const sizes = fc.array(fc.oneof(fc.nat(20), fc.nat(5000)), { maxLength: 200 });
    fc.assert(fc.property(sizes, (list) => void expect(decode(cutAt(stream, list))).toEqual(whole)));
  });

  it('with a byte changed gives events or a typed error, and the same ones in any chunks', () => {
    fc.assert(
      fc.property(
        fc.nat(stream.length - 1),
        fc.integer({ min: 1, max: 255 }),
        fc.integer({ min: 1, max: 5000 }),
        (at, flip, size) => {
          const mutated = Buffer.from(stream);
          mutated[at]! ^= flip;
          expect(decode(cut(mutated, size))).toEqual(decode([mutated]));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('with any byte of a head changed gives events or a typed error', () => {
    for (let at = 0; at < stream.length; at += 1) {
      if (at > 400 && at % 37 !== 0) continue;
      for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
        const mutated = Buffer.from(stream);
        mutated[at] = value;
        decode([mutated]);
      }
    }
  });

  it('with a stretch removed, repeated or replaced by noise gives events or a typed error', () => {
    const place = fc.nat(stream.length);
    fc.assert(
      fc.property(place, place, fc.uint8Array({ maxLength: 40 }), fc.boolean(), (a, b, noise, repeat) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        const kept = repeat
          ? [stream.subarray(0, to), noise, stream.subarray(from)]
          : [stream.subarray(0, from), noise, stream.subarray(to)];
        decode(cut(Buffer.concat(kept), 1500));
      }),
    );
  });
});

it('any bytes at all give events or a typed error', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => void decode([HEADER, Buffer.from(noise)])));
});

describe('memory', () => {
  function heldAfter(prefix: Buffer, chunk: Buffer, chunks: number): { heldBytes: number; error: unknown } {
    const decoder = new StreamDecoder({ page() {}, zeroPage() {} });
    global.gc?.();
    const before = process.memoryUsage();
    let error: unknown = null;
    try {
      decoder.feed(prefix);
      for (let index = 0; index < chunks; index += 1) decoder.feed(chunk);
    } catch (caught) {
      error = caught;
    }
    const after = process.memoryUsage();
    const heldBytes = after.arrayBuffers - before.arrayBuffers + after.heapUsed - before.heapUsed;
    expect(decoder.state).toBeDefined();
    return { heldBytes, error };
  }

  it('follows what has come of a package, not the length that it claims', () => {
    const { heldBytes, error } = heldAfter(
      Buffer.concat([HEADER, command(7, be32(200 * 2 ** 20))]),
      Buffer.alloc(65536),
      16,
    );
    expect(error).toBeNull();
    expect(heldBytes).toBeLessThan(16 * 2 ** 20);
  });

  it('does not grow with the tail, nor with the number of sections', () => {
    const device = Buffer.concat([HEADER, u8(4), be32(9), named('timer')]);
    expect(heldAfter(device, Buffer.alloc(65536), 1000).heldBytes).toBeLessThan(32 * 2 ** 20);
    const blocks = Buffer.concat([HEADER, section('start', memSize(['a', 0x1000]))]);
    expect(heldAfter(blocks, section('part'), 50_000).heldBytes).toBeLessThan(32 * 2 ** 20);
  });

  it('is not given to endless lists of blocks', () => {
    const list = Buffer.concat(
      Array.from({ length: 10_000 }, (_, index) => Buffer.concat([named(`b${index}`), be64(4096)])),
    );
    const start = Buffer.concat([HEADER, section('start').subarray(0, 17), be64(2 ** 43 + 4)]);
    const { error } = heldAfter(start, list, 1);
    expect(error).toBeInstanceOf(StreamError);
    expect(String(error)).toMatch(/More than 4096 RAM blocks/);
  });
});
