import { describe, expect, it } from 'vitest';
import { RamFlag, StreamDecoder, StreamError, type StreamHandler } from '../../stream/index.js';
import {
  advise,
  be32,
  be64,
  capabilities,
  command,
  configuration,
  contents,
  DEVICE,
  EOF,
  HEADER,
  memSize,
  named,
  packaged,
  page,
  postcopyStream,
  precopyStream,
  record,
  section,
  subsection,
  u8,
  vmdesc,
  zero,
} from './bytes.js';
import { cut, decode } from './recorder.js';

const CONFIGURATION = configuration('pc-q35-7.2');
const BLOCKS = section('start', memSize(['pc.ram', 0x8000], ['pc.rom', 0x2000]));

/** Names of the events, in order. */
function kinds(...parts: Buffer[]): unknown[] {
  return decode([Buffer.concat(parts)]).map(([kind]) => kind);
}

function errorOf(stream: Buffer, options = {}): readonly unknown[] | undefined {
  const last = decode([stream], options).at(-1);
  return last?.[0] === 'error' ? last : undefined;
}

function afterBlocks(...parts: Buffer[]) {
  const head = Buffer.concat([HEADER, CONFIGURATION, BLOCKS]);
  return { error: errorOf(Buffer.concat([head, ...parts])), offset: head.length };
}

describe('what a stream contains', () => {
  it('is told in stream order for a pre-copy', () => {
    const events = decode([precopyStream()]);
    expect(events.map(([kind]) => kind)).toEqual([
      'header',
      'configuration',
      ...['command', 'command', 'sectionStart', 'ramBlocks', 'sectionEnd'],
      ...['sectionStart', 'page', 'zeroPage', 'zeroPage', 'page', 'zeroPage', 'ramRecord', 'sectionEnd'],
      ...['sectionStart', 'sectionEnd'],
      ...['sectionStart', 'page', 'page', 'sectionEnd'],
      ...['command', 'tailStart', 'end', 'tail'],
    ]);
    expect(events[1]![2]).toEqual({
      machine: 'pc-q35-7.2',
      capabilities: ['x-ignore-shared'],
      subsections: ['configuration/capabilities'],
    });
    const tail = Buffer.concat([DEVICE, EOF, vmdesc('{"page_size":4096,"devices":[]}')]);
    expect(events.at(-1)).toEqual(['tail', tail.toString('hex')]);
    expect(events.find(([kind]) => kind === 'tailStart')).toEqual(['tailStart', 'device-state', 'timer']);
  });

  it('is told in stream order for a post-copy', () => {
    const events = decode([postcopyStream()]);
    expect(events.map(([kind]) => kind)).toEqual([
      ...['header', 'configuration', 'command', 'command', 'sectionStart', 'ramBlocks', 'sectionEnd'],
      ...['sectionStart', 'page', 'zeroPage', 'sectionEnd', 'command', 'packaged'],
      ...['sectionStart', 'page', 'sectionEnd', 'sectionStart', 'zeroPage', 'sectionEnd', 'eof', 'end'],
    ]);
    const nested = Buffer.concat([command(4), DEVICE, command(5)]);
    expect(events.find(([kind]) => kind === 'packaged')![1]).toBe(nested.toString('hex'));
  });

  it('may come without a configuration section', () => {
    expect(kinds(HEADER, BLOCKS, EOF)).toEqual(['header', 'sectionStart', 'ramBlocks', 'sectionEnd', 'eof', 'end']);
  });

  it('may have a description after the EOF of a packaged device state', () => {
    expect(decode([Buffer.concat([HEADER, BLOCKS, EOF, vmdesc('{}')])]).slice(-3)).toEqual([
      ['eof'],
      ['vmdesc', '{}'],
      ['end'],
    ]);
  });

  it('can be read from inside a package, which has no header', () => {
    const events = decode([Buffer.concat([command(4), DEVICE, command(5)])], { withoutHeader: true });
    expect(events.map(([kind]) => kind)).toEqual(['command', 'tailStart', 'end', 'tail']);
  });

  it('is handed over raw from an iterative section that only its device can delimit', () => {
    const bitmap = Buffer.concat([u8(1), be32(3), named('dirty-bitmap'), be32(0), be32(1), contents(1)]);
    const events = decode(cut(Buffer.concat([HEADER, CONFIGURATION, bitmap, BLOCKS]), 7));
    expect(events.slice(2)).toEqual([
      ['tailStart', 'opaque-section', 'dirty-bitmap'],
      ['end'],
      ['tail', Buffer.concat([bitmap, BLOCKS]).toString('hex')],
    ]);
  });

  it('includes subsections for the page size and the identity of the guest', () => {
    const bits = subsection('configuration/target-page-bits', be32(12));
    const uuid = subsection('configuration/uuid', contents(1).subarray(0, 16));
    const events = decode([Buffer.concat([HEADER, configuration('virt-7.2', bits, uuid), BLOCKS, EOF])]);
    expect(events[1]![2]).toMatchObject({
      subsections: ['configuration/target-page-bits', 'configuration/uuid'],
      capabilities: null,
    });
  });
});

describe('pages', () => {
  const handler: StreamHandler = { page() {}, zeroPage() {} };

  it('are passed in place when they lie whole in a chunk, and from one scratch buffer when they are cut', () => {
    const sources = new Set<Buffer>();
    const stream = Buffer.concat([
      HEADER,
      BLOCKS,
      section('part', page(0, contents(1), 'pc.ram'), page(1, contents(2))),
    ]);
    const decoder = new StreamDecoder({ ...handler, page: (_block, _index, source) => void sources.add(source) });
    decoder.feed(stream);
    expect([...sources]).toEqual([stream]);

    sources.clear();
    const cutting = new StreamDecoder({ ...handler, page: (_block, _index, source) => void sources.add(source) });
    for (const chunk of cut(stream, 1000)) cutting.feed(chunk);
    expect(sources.size).toBe(1);
  });

  it('tell by the flags whether their record named the block', () => {
    const flags: number[] = [];
    const decoder: StreamDecoder = new StreamDecoder({
      page: () => void flags.push(decoder.lastFlags),
      zeroPage: () => void flags.push(decoder.lastFlags),
    });
    decoder.feed(Buffer.concat([HEADER, BLOCKS, section('part', page(0, contents(1), 'pc.ram'), zero(1))]));
    expect(flags).toEqual([RamFlag.page, RamFlag.zero | RamFlag.continue]);
  });

  it('beyond 4 GiB have the right index', () => {
    const blocks = section('start', memSize(['m0', 2 ** 40]));
    const last = 2 ** 28 - 1;
    const events = decode([Buffer.concat([HEADER, blocks, section('part', zero(last, 0, 'm0'), zero(2 ** 20)), EOF])]);
    const indexes = events.filter(([kind]) => kind === 'zeroPage').map(([, , index]) => index);
    expect(indexes).toEqual([last, 2 ** 20]);
  });
});

describe('a corrupt stream', () => {
  const corrupt: [what: string, ...parts: Buffer[]][] = [
    ['does not begin with QEVM', Buffer.from('QEVX'), be32(3)],
    ['has a machine name of absurd length', HEADER, u8(7), be32(0xffffffff)],
    [
      'has absurdly many capabilities',
      HEADER,
      configuration('pc'),
      subsection('configuration/capabilities', be32(1e9)),
    ],
    ['has a subsection twice', HEADER, configuration('pc', capabilities(), capabilities())],
    ['has an unknown section type', HEADER, u8(0x55)],
    ['continues a section that was not started', HEADER, section('part')],
    ['starts RAM twice', HEADER, BLOCKS, BLOCKS],
    ['announces blocks twice', HEADER, BLOCKS, section('part', memSize(['x', 0x1000]))],
    ['announces absurdly much RAM', HEADER, section('start', memSize(['x', 2 ** 50]))],
    ['announces more than the total', HEADER, section('start', be64(0x1004), named('x'), be64(0x2000))],
    ['announces a block of a part of a page', HEADER, section('start', be64(0x1004), named('x'), be64(0x800))],
    ['announces a block without name', HEADER, section('start', memSize(['', 0x1000]))],
    ['announces a block twice', HEADER, section('start', memSize(['x', 0x1000], ['x', 0x1000]))],
    [
      'gives a page size that no block has',
      HEADER,
      advise(0x201000),
      section('start', memSize(['x', 0x1000, be64(0x400000)])),
    ],
    ['has ADVISE of the wrong length', HEADER, command(3, be32(1))],
    ['has PACKAGED without a length', HEADER, command(7)],
    ['has a page of an unknown block', HEADER, BLOCKS, section('part', page(0, contents(1), 'x'))],
    ['has a page before any block is known', HEADER, section('start', page(0, contents(1), 'pc.ram'))],
    ['has a page of the same block as none', HEADER, BLOCKS, section('part', page(0, contents(1)))],
    ['has a page beyond its block', HEADER, BLOCKS, section('part', zero(8, 0, 'pc.ram'))],
    ['has a page far beyond its block', HEADER, BLOCKS, section('part', zero(2 ** 51, 0, 'pc.ram'))],
    [
      'has a record that is both page and zero',
      HEADER,
      BLOCKS,
      section('part', record(0, 0x0a, contents(1), 'pc.ram')),
    ],
    ['has a record without flags', HEADER, BLOCKS, section('part', be64(0x1000))],
    ['ends a section at an offset', HEADER, BLOCKS, u8(2), be32(2), be64(0x1010)],
    ['has a section without footer', HEADER, BLOCKS.subarray(0, -5), command(11)],
    ['has the footer of another section', HEADER, BLOCKS.subarray(0, -4), be32(3)],
    ['goes on after its end', HEADER, BLOCKS, EOF, u8(1)],
    ['goes on after its description', HEADER, BLOCKS, EOF, vmdesc('{}'), u8(0)],
  ];
  it.each(corrupt)('that %s is refused', (_what, ...parts) => {
    const stream = Buffer.concat(parts);
    for (const size of [1, stream.length]) {
      expect(decode(cut(stream, size)).at(-1)).toMatchObject(['error', 'VMMIG_STREAM_CORRUPT', expect.any(Number)]);
    }
  });

  it('is refused with the offset of the record that is wrong', () => {
    const good = section('part', page(0, contents(1), 'pc.ram'));
    const { error, offset } = afterBlocks(good, u8(2), be32(2), page(2, contents(1)), page(99, contents(2)));
    expect(error).toEqual(['error', 'VMMIG_STREAM_CORRUPT', offset + good.length + 5 + 8 + 4096]);
  });

  it('stays refused', () => {
    const decoder = new StreamDecoder({ page() {}, zeroPage() {} });
    expect(() => decoder.feed(Buffer.alloc(8))).toThrow(StreamError);
    expect(() => decoder.feed(HEADER)).toThrow(StreamError);
    expect(() => decoder.end()).toThrow(StreamError);
    expect(decoder.state).toBe('failed');
  });
});

describe('a stream that is not supported', () => {
  const unsupported: [what: string, ...parts: Buffer[]][] = [
    ['of another version', Buffer.from('QEVM'), be32(2)],
    ['with mapped-ram', HEADER, configuration('pc', capabilities('mapped-ram')), command(1)],
    ['with an unknown configuration subsection', HEADER, configuration('pc', subsection('configuration/new'))],
    ['with larger pages', HEADER, configuration('virt', subsection('configuration/target-page-bits', be32(16)))],
    ['with RAM of another version', HEADER, u8(1), be32(2), named('ram'), be32(0), be32(5)],
    ['with XBZRLE', HEADER, BLOCKS, section('part', record(0, RamFlag.xbzrle, contents(1), 'pc.ram'))],
    [
      'with compressed pages',
      HEADER,
      BLOCKS,
      section('part', record(0, RamFlag.compressedPage, contents(1), 'pc.ram')),
    ],
    ['by RDMA', HEADER, BLOCKS, section('part', be64(RamFlag.hook))],
    ['with a flag that is not known', HEADER, BLOCKS, section('part', be64(0x400))],
  ];
  it.each(unsupported)('(%s) is refused', (_what, ...parts) => {
    expect(errorOf(Buffer.concat(parts))).toMatchObject(['error', 'VMMIG_STREAM_UNSUPPORTED', expect.any(Number)]);
  });

  it('says which capability to switch off', () => {
    const decoder = new StreamDecoder({ page() {}, zeroPage() {} });
    const stream = Buffer.concat([HEADER, BLOCKS, section('part', be64(RamFlag.xbzrle))]);
    expect(() => decoder.feed(stream)).toThrow(/capability xbzrle off/);
  });

  it('includes packages and descriptions above the limit, however little of them has come', () => {
    const limits = { packagedBytes: 100, vmdescBytes: 100 };
    expect(errorOf(Buffer.concat([HEADER, command(7, be32(101))]), limits)?.[1]).toBe('VMMIG_STREAM_UNSUPPORTED');
    const described = Buffer.concat([HEADER, EOF, u8(6), be32(101)]);
    expect(errorOf(described, limits)?.[1]).toBe('VMMIG_STREAM_UNSUPPORTED');
    expect(errorOf(Buffer.concat([HEADER, packaged(Buffer.alloc(100)), EOF]), limits)).toBeUndefined();
  });
});

describe('a truncated stream', () => {
  it.each([
    ['pre-copy', precopyStream(), precopyStream().indexOf(DEVICE) + 11],
    ['post-copy', postcopyStream(), postcopyStream().length],
  ])('(%s) is told from a whole one wherever RAM or a command is cut', (_what, stream, whole) => {
    for (let length = 0; length < whole; length += length % 4096 < 300 ? 1 : 97) {
      expect(errorOf(stream.subarray(0, length))?.[1]).toBe('VMMIG_STREAM_TRUNCATED');
    }
  });
});

it('a handler that throws stops the decoder', () => {
  const decoder = new StreamDecoder({
    page() {},
    zeroPage() {},
    header() {
      throw new RangeError('enough');
    },
  });
  expect(() => decoder.feed(HEADER)).toThrow('enough');
  expect(() => decoder.feed(BLOCKS)).toThrow('enough');
});
