import { describe, expect, it } from 'vitest';
import {
  encodeConfiguration,
  encodePostcopyAdvise,
  encodeRamDiscard,
  passThrough,
  type RamBlock,
  StreamCommand,
  StreamDecoder,
  StreamEncoder,
} from '../../stream/index.js';
import {
  advise,
  be64,
  capabilities,
  command,
  configuration,
  contents,
  DEVICE,
  EOF,
  HEADER,
  memSize,
  packaged,
  page,
  postcopyStream,
  precopyStream,
  section,
  zero,
} from './bytes.js';
import { cut } from './recorder.js';

const RAM: RamBlock = { name: 'pc.ram', index: 0, lengthBytes: 2 ** 41, pageSizeBytes: null, gpa: null };
const ROM: RamBlock = { name: 'pc.rom', index: 1, lengthBytes: 0x2000, pageSizeBytes: null, gpa: null };

function reencode(stream: Buffer, chunkBytes: number): Buffer {
  const encoder = new StreamEncoder({ batchBytes: 8192 });
  const decoder: StreamDecoder = new StreamDecoder(passThrough(encoder, () => decoder.lastFlags));
  const out: Buffer[] = [];
  for (const chunk of cut(stream, chunkBytes)) {
    decoder.feed(chunk);
    const batch = encoder.take();
    out.push(Buffer.from(batch));
    encoder.recycle(batch);
  }
  decoder.end();
  out.push(encoder.take());
  return Buffer.concat(out);
}

describe('the encoder', () => {
  it('ends a stream wherever its memory ends', () => {
    for (const lengthBytes of [0, 8191, 8192, 8193]) {
      const encoder = new StreamEncoder({ batchBytes: 8192 });
      encoder.raw(Buffer.alloc(lengthBytes, 1));
      encoder.eof();
      expect(encoder.take()).toEqual(Buffer.concat([Buffer.alloc(lengthBytes, 1), EOF]));
    }
  });

  it('writes a pre-copy stream as QEMU does', () => {
    const encoder = new StreamEncoder();
    encoder.header();
    encoder.configuration(encodeConfiguration('pc-q35-7.2', ['x-ignore-shared']));
    encoder.command(StreamCommand.openReturnPath);
    encoder.sectionStart('start', 2, 'ram', 0, 4);
    encoder.ramBlocks([
      { ...RAM, gpa: 0 },
      { ...ROM, gpa: 0xc0000 },
    ]);
    encoder.eos();
    encoder.footer(2);
    encoder.sectionContinue('part', 2);
    encoder.page(RAM, 2 ** 29 - 1, contents(1), 0);
    encoder.zeroPage(RAM, 1);
    encoder.zeroPage(ROM, 1, 9);
    encoder.eos();
    encoder.footer(2);
    encoder.sectionContinue('end', 2);
    encoder.page(ROM, 0, Buffer.concat([Buffer.alloc(3), contents(2)]), 3);
    encoder.eos();
    encoder.footer(2);
    encoder.tail(DEVICE);
    encoder.eof();
    const expected = Buffer.concat([
      HEADER,
      configuration('pc-q35-7.2', capabilities('x-ignore-shared')),
      command(1),
      section('start', memSize(['pc.ram', RAM.lengthBytes, be64(0)], ['pc.rom', 0x2000, be64(0xc0000)])),
      section('part', page(2 ** 29 - 1, contents(1), 'pc.ram'), zero(1), zero(1, 9, 'pc.rom')),
      section('end', page(0, contents(2))),
      DEVICE,
      EOF,
    ]);
    expect(encoder.pendingBytes).toBe(expected.length);
    expect(encoder.take().equals(expected)).toBe(true);
  });

  it('writes what a post-copy has besides', () => {
    const encoder = new StreamEncoder();
    encoder.command(StreamCommand.postcopyAdvise, encodePostcopyAdvise(0x201000));
    encoder.sectionStart('full', 2, 'ram', 0, 4);
    encoder.ramBlocks([{ ...RAM, pageSizeBytes: 0x200000 }]);
    encoder.multifdFlush();
    encoder.eos();
    encoder.footer(2);
    encoder.command(
      StreamCommand.postcopyRamDiscard,
      encodeRamDiscard('m0', [{ startBytes: 0, lengthBytes: 2 ** 40 }]),
    );
    encoder.packaged(DEVICE);
    const list = memSize(['pc.ram', RAM.lengthBytes, be64(0x200000)]);
    const expected = [advise(0x201000), section('full', list, be64(0x200))];
    const discard = command(6, Buffer.from('\0\x02m0\0'), be64(0), be64(2 ** 40));
    expect(encoder.take().equals(Buffer.concat([...expected, discard, packaged(DEVICE)]))).toBe(true);
  });

  it.each([1, 7, 4096, 1 << 20])('gives back what was decoded in chunks of %d bytes, unchanged', (chunkBytes) => {
    for (const stream of [precopyStream(), postcopyStream()]) {
      expect(reencode(stream, chunkBytes).equals(stream)).toBe(true);
    }
  });

  it('names a block again when it is told to', () => {
    const encoder = new StreamEncoder();
    encoder.zeroPage(RAM, 0);
    encoder.nameNextBlock();
    encoder.zeroPage(RAM, 1);
    encoder.zeroPage(RAM, 2);
    expect(encoder.take()).toEqual(Buffer.concat([zero(0, 0, 'pc.ram'), zero(1, 0, 'pc.ram'), zero(2)]));
  });
});

describe('batches', () => {
  it('are the caller’s: what is written later does not change them', () => {
    const encoder = new StreamEncoder();
    for (const lengthBytes of [5, 5000]) {
      encoder.raw(Buffer.alloc(lengthBytes, 1));
      const taken = encoder.take();
      encoder.raw(Buffer.alloc(lengthBytes, 2));
      encoder.take();
      expect(taken.equals(Buffer.alloc(lengthBytes, 1))).toBe(true);
    }
    expect(encoder.take()).toHaveLength(0);
  });

  it('may grow beyond the memory set aside for one', () => {
    const encoder = new StreamEncoder({ batchBytes: 100 });
    const parts = [10, 80, 50, 1000, 1, 5000].map((lengthBytes, index) => Buffer.alloc(lengthBytes, index));
    for (const part of parts) encoder.raw(part);
    expect(encoder.take().equals(Buffer.concat(parts))).toBe(true);
  });

  it('use the memory again that is given back, and no other', () => {
    const encoder = new StreamEncoder({ batchBytes: 8192 });
    encoder.raw(Buffer.alloc(8));
    // A few bytes come in memory that all small Buffers share.
    const small = encoder.take();
    encoder.raw(Buffer.alloc(8000));
    const first = encoder.take();
    for (const batch of [small, Buffer.allocUnsafeSlow(8192), first, first]) encoder.recycle(batch);
    encoder.raw(Buffer.alloc(8000));
    expect(encoder.take().buffer === first.buffer).toBe(true);
    encoder.raw(Buffer.alloc(8000));
    expect(encoder.take().buffer === first.buffer).toBe(false);
  });
});
