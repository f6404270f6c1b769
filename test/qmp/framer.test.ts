import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QmpProtocolError } from '../../qmp/errors.js';
import { LineFramer } from '../../qmp/framer.js';

/** Feeds `bytes` cut at `cuts` and collects the lines. */
function frame(framer: LineFramer, bytes: Uint8Array, cuts: readonly number[] = []): string[] {
  const lines: string[] = [];
  let start = 0;
  for (const end of [...cuts, bytes.length].sort((a, b) => a - b)) {
    lines.push(...framer.push(bytes.subarray(start, end)));
    start = end;
  }
  return lines;
}

describe('LineFramer', () => {
  it('gives the same lines wherever the input is split', () => {
    const line = fc.string({ unit: 'binary', minLength: 1 }).map((text) => JSON.stringify(text));
    fc.assert(
      fc.property(fc.array(line), fc.infiniteStream(fc.nat()), (lines, numbers) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\r\n`).join(''));
        const cuts = [...numbers.take(8)].map((number) => number % (bytes.length + 1));
        expect(frame(new LineFramer(), bytes, cuts)).toEqual(lines);
      }),
    );
  });

  it('gives the same lines when every byte comes alone', () => {
    const bytes = Buffer.from('{"a":"ä€😀"}\r\n\r\n{"b":1}\n');
    const everywhere = Array.from(bytes, (_, index) => index);
    expect(frame(new LineFramer(), bytes, everywhere)).toEqual(['{"a":"ä€😀"}', '{"b":1}']);
  });

  it('keeps what has no end yet', () => {
    const framer = new LineFramer();
    expect([...framer.push(Buffer.from('{"a":'))]).toEqual([]);
    expect(framer.pendingBytes).toBe(5);
    expect([...framer.push(Buffer.from('1}\n'))]).toEqual(['{"a":1}']);
    expect(framer.pendingBytes).toBe(0);
  });

  it('takes a line of the limit and refuses one byte more, whole or in pieces', () => {
    const fits = Buffer.from(`${'x'.repeat(100)}\n`);
    const tooLong = Buffer.from(`${'x'.repeat(101)}\n`);
    for (const cuts of [[], [1], [50, 100]]) {
      expect(frame(new LineFramer(100), fits, cuts)).toEqual(['x'.repeat(100)]);
      expect(() => frame(new LineFramer(100), tooLong, cuts)).toThrow(QmpProtocolError);
    }
  });

  it('refuses an endless line as soon as it is too long', () => {
    const framer = new LineFramer(100);
    expect([...framer.push(Buffer.alloc(100, 'x'))]).toEqual([]);
    expect(() => [...framer.push(Buffer.from('x'))]).toThrow(/more than 100 bytes/);
  });

  it('reads a line of 10 MB in small pieces in linear time', () => {
    const framer = new LineFramer();
    const piece = Buffer.alloc(16, 'x');
    const startedMs = performance.now();
    for (let sent = 0; sent < 10 * 1024 * 1024; sent += piece.length) {
      for (const _ of framer.push(piece)) throw new Error('no line has ended');
    }
    const [line] = [...framer.push(Buffer.from('\n'))];
    expect(line?.length).toBe(10 * 1024 * 1024);
    // Copying or scanning all that came before for each piece would move 3 TB.
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });

  it('gives the lines before one that is not UTF-8, then fails', () => {
    const lines: string[] = [];
    const bytes = Buffer.concat([Buffer.from('{"a":1}\n"'), Buffer.from([0xc3, 0x28]), Buffer.from('"\n')]);
    expect(() => {
      for (const line of new LineFramer().push(bytes)) lines.push(line);
    }).toThrow(/not UTF-8/);
    expect(lines).toEqual(['{"a":1}']);
  });
});
