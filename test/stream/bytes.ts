/** A stream put together by hand: what the decoder and the encoder are both checked against. */
import { RamFlag } from '../../stream/index.js';

export function u8(...values: number[]): Buffer {
  return Buffer.from(values);
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function be64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export function named(name: string): Buffer {
  return Buffer.concat([u8(name.length), Buffer.from(name, 'latin1')]);
}

export const HEADER = Buffer.concat([Buffer.from('QEVM'), be32(3)]);
export const EOS = be64(RamFlag.eos);
export const EOF = u8(0);

export function configuration(machine: string, ...subsections: Buffer[]): Buffer {
  return Buffer.concat([u8(7), be32(machine.length), Buffer.from(machine), ...subsections]);
}

export function subsection(name: string, ...body: Buffer[]): Buffer {
  return Buffer.concat([u8(5), named(name), be32(1), ...body]);
}

export function capabilities(...names: string[]): Buffer {
  return subsection('configuration/capabilities', be32(names.length), ...names.map(named));
}

export function command(number: number, ...data: Buffer[]): Buffer {
  const bytes = Buffer.concat(data);
  return Buffer.concat([u8(8), be16(number), be16(bytes.length), bytes]);
}

export function packaged(nested: Buffer): Buffer {
  return Buffer.concat([command(7, be32(nested.length)), nested]);
}

export function advise(hostPageSizes = 4096): Buffer {
  return command(3, be64(hostPageSizes), be64(4096));
}

/** A RAM section from head to footer; `records` without EOS. */
export function section(type: 'start' | 'part' | 'end' | 'full', ...records: Buffer[]): Buffer {
  const head = {
    start: Buffer.concat([u8(1), be32(2), named('ram'), be32(0), be32(4)]),
    full: Buffer.concat([u8(4), be32(2), named('ram'), be32(0), be32(4)]),
    part: Buffer.concat([u8(2), be32(2)]),
    end: Buffer.concat([u8(3), be32(2)]),
  };
  return Buffer.concat([head[type], ...records, EOS, u8(0x7e), be32(2)]);
}

/** MEM_SIZE; each block with its length and whatever is to follow that. */
export function memSize(...blocks: [name: string, lengthBytes: number, ...rest: Buffer[]][]): Buffer {
  const total = blocks.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0);
  const list = blocks.map(([name, lengthBytes, ...rest]) => Buffer.concat([named(name), be64(lengthBytes), ...rest]));
  return Buffer.concat([be64(BigInt(total) | BigInt(RamFlag.memSize)), ...list]);
}

/** A page record; without a block it is one of the same block as before. */
export function page(pageIndex: number, bytes: Buffer, block?: string): Buffer {
  return record(pageIndex, RamFlag.page, bytes, block);
}

export function zero(pageIndex: number, fill = 0, block?: string): Buffer {
  return record(pageIndex, RamFlag.zero, u8(fill), block);
}

export function record(pageIndex: number, flags: number, payload: Buffer, block?: string): Buffer {
  const offset = BigInt(pageIndex) * 4096n;
  if (block === undefined) return Buffer.concat([be64(offset | BigInt(flags | RamFlag.continue)), payload]);
  return Buffer.concat([be64(offset | BigInt(flags)), named(block), payload]);
}

/** A page with contents of its own. */
export function contents(seed: number): Buffer {
  const bytes = Buffer.alloc(4096);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeInt32LE(Math.imul(seed + at, 2654435761) | 0, at);
  return bytes;
}

/** Device state: one section that could be anything. */
export const DEVICE = Buffer.concat([u8(4), be32(9), named('timer'), be32(0), be32(2), contents(9), u8(0x7e), be32(9)]);

export function vmdesc(json: string): Buffer {
  return Buffer.concat([u8(6), be32(json.length), Buffer.from(json)]);
}

/** A stream with everything that a pre-copy has. */
export function precopyStream(): Buffer {
  const pages = [page(0, contents(1), 'pc.ram'), zero(1), zero(2, 0xff), page(5, contents(2)), zero(0, 0, 'pc.rom')];
  return Buffer.concat([
    HEADER,
    configuration('pc-q35-7.2', capabilities('x-ignore-shared')),
    command(1),
    command(2, be32(7)),
    section('start', memSize(['pc.ram', 0x8000, be64(0)], ['pc.rom', 0x2000, be64(0xc0000)])),
    section('part', ...pages, be64(RamFlag.multifdFlush)),
    section('part'),
    // The block is the one that the section before last named.
    section('end', page(1, contents(3)), page(0, contents(4), 'pc.ram')),
    command(11),
    DEVICE,
    EOF,
    vmdesc('{"page_size":4096,"devices":[]}'),
  ]);
}

/** A stream with everything that a post-copy has. */
export function postcopyStream(): Buffer {
  const nested = Buffer.concat([command(4), DEVICE, command(5)]);
  return Buffer.concat([
    HEADER,
    configuration('pc-q35-10.0'),
    command(1),
    advise(0x201000),
    section('start', memSize(['m0', 0x400000, be64(0x200000)], ['pc.bios', 0x40000])),
    section('part', page(3, contents(1), 'pc.bios'), zero(511, 0, 'm0')),
    command(6, u8(0), named('m0'), u8(0), be64(0), be64(0x400000)),
    packaged(nested),
    section('part', page(0, contents(5))),
    section('end', zero(1)),
    EOF,
  ]);
}
