import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeReturnPath, ReturnPathDecoder, type ReturnPathMessage, StreamError } from '../../stream/index.js';
import { be16, be32, be64, named } from './bytes.js';
import { cut } from './recorder.js';

const MESSAGES: ReturnPathMessage[] = [
  { type: 'pong', value: 1 },
  { type: 'request-pages', block: 'pc.ram', offsetBytes: 2 ** 33 + 4096, lengthBytes: 8192, named: true },
  { type: 'request-pages', block: 'pc.ram', offsetBytes: 0, lengthBytes: 4096, named: false },
  { type: 'received-bitmap', block: 'pc.ram', bitmap: Buffer.from('ff00000000000001', 'hex') },
  { type: 'resume-ack', value: 1 },
  { type: 'switchover-ack' },
  { type: 'shut', value: 0 },
];

function message(type: number, ...data: Buffer[]): Buffer {
  const bytes = Buffer.concat(data);
  return Buffer.concat([be16(type), be16(bytes.length), bytes]);
}

const BYTES = Buffer.concat([
  message(2, be32(1)),
  message(3, be64(2 ** 33 + 4096), be32(8192), named('pc.ram')),
  message(4, be64(0), be32(4096)),
  message(5, named('pc.ram')),
  Buffer.concat([be64(8), Buffer.from('ff00000000000001', 'hex'), be64(0x0123456789abcdefn)]),
  message(6, be32(1)),
  message(7),
  message(1, be32(0)),
]);

function decode(chunks: Iterable<Buffer>): ReturnPathMessage[] {
  const decoder = new ReturnPathDecoder();
  const messages = [...chunks].flatMap((chunk) => decoder.feed(chunk));
  decoder.end();
  return messages;
}

describe('the return path', () => {
  it('is decoded in any chunking', () => {
    for (let chunkBytes = 1; chunkBytes <= BYTES.length; chunkBytes += 1) {
      expect(decode(cut(BYTES, chunkBytes))).toEqual(MESSAGES);
    }
  });

  it('is encoded as QEMU does', () => {
    expect(Buffer.concat(MESSAGES.map(encodeReturnPath)).toString('hex')).toBe(BYTES.toString('hex'));
  });

  it.each([
    ['a number of the wrong length', message(2, be16(1))],
    ['an acknowledgement with data', message(7, be16(1))],
    ['pages of no block', message(4, be64(0), be32(4096))],
    ['a name longer than the message', message(3, be64(0), be32(4096), Buffer.from([9, 65]))],
    ['a name shorter than the message', message(3, be64(0), be32(4096), Buffer.from([1, 65, 65]))],
    ['no page', message(3, be64(1), be32(4096), named('a'))],
    ['half a page', message(3, be64(0), be32(2048), named('a'))],
    ['an offset beyond all memory', message(3, be64(2n ** 64n - 4096n), be32(4096), named('a'))],
    ['a bitmap of absurd length', Buffer.concat([message(5, named('a')), be64(2 ** 40)])],
    ['a bitmap without its end', Buffer.concat([message(5, named('a')), be64(8), be64(0), be64(0)])],
  ])('that has %s is refused', (_what, bytes) => {
    const decoder = new ReturnPathDecoder();
    decoder.feed(message(2, be32(1)));
    expect(() => decoder.feed(bytes)).toThrow(expect.objectContaining({ code: 'VMMIG_STREAM_CORRUPT', offset: 8 }));
    expect(() => decoder.feed(BYTES)).toThrow(StreamError);
  });

  it('that has an unknown message is refused, not guessed at', () => {
    expect(() => decode([message(8)])).toThrow(expect.objectContaining({ code: 'VMMIG_STREAM_UNSUPPORTED' }));
  });

  it('must not end inside a message', () => {
    expect(() => decode([BYTES.subarray(0, -1)])).toThrow(expect.objectContaining({ code: 'VMMIG_STREAM_TRUNCATED' }));
  });

  it('of any bytes gives messages or a typed error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(BYTES.length), (noise, at) => {
        const bytes = Buffer.concat([BYTES.subarray(0, at), noise, BYTES.subarray(at)]);
        try {
          decode(cut(bytes, 5));
        } catch (error) {
          expect(error).toBeInstanceOf(StreamError);
        }
      }),
    );
  });
});
