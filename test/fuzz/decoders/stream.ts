/** QEMU's migration stream, and what belongs to it. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import {
  decodeRamDiscard,
  describeDevices,
  encodeRamDiscard,
  encodeReturnPath,
  passThrough,
  ReturnPathDecoder,
  type ReturnPathMessage,
  StreamDecoder,
  StreamEncoder,
  StreamError,
  type StreamHandler,
  splitTail,
} from '../../../stream/index.js';
import { DEVICE, HEADER, postcopyStream, precopyStream } from '../../stream/bytes.js';
import { type Decoded, type Decoder, OracleError } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof StreamError;
const real = new URL('../seeds/', import.meta.url);

/** Parts of what real QEMUs have written: see `captureSeeds.ts`. */
function realSeeds(): Buffer[] {
  return readdirSync(real)
    .sort()
    .map((name) => readFileSync(new URL(name, real)));
}

/** What the decoder tells, as a digest, and what the encoder makes of it: that has to be the input. */
function decodeStream(chunks: readonly Buffer[], withoutHeader: boolean): Decoded {
  const told = createHash('sha1');
  const encoder = new StreamEncoder();
  const decoder: StreamDecoder = new StreamDecoder(
    recording(told, encoder, () => decoder.lastFlags),
    { withoutHeader },
  );
  for (const chunk of chunks) {
    decoder.feed(chunk);
    // The chunk may be used again: nothing that is told later may be read from it.
    chunk.fill(0xa5);
  }
  decoder.end();
  return { value: told.digest('hex'), encoded: encoder.take(), isVerbatim: true };
}

function recording(
  told: ReturnType<typeof createHash>,
  encoder: StreamEncoder,
  lastFlags: () => number,
): StreamHandler {
  const back = passThrough(encoder, lastFlags);
  return {
    ...back,
    configuration(raw, decoded) {
      told.update(`configuration ${JSON.stringify(decoded)}`);
      back.configuration(raw, decoded);
    },
    command(command, data, raw) {
      told.update(`command ${command} ${data.length}`);
      back.command(command, data, raw);
    },
    sectionStart(section) {
      told.update(`section ${JSON.stringify(section)}`);
      back.sectionStart(section);
    },
    ramBlocks(blocks, raw) {
      told.update(`blocks ${JSON.stringify(blocks)}`);
      back.ramBlocks(blocks, raw);
    },
    page(block, pageIndex, source, start) {
      if (pageIndex * 4096 >= block.lengthBytes || start + 4096 > source.length) throw new OracleError('page outside');
      told.update(`page ${block.name} ${pageIndex}`).update(source.subarray(start, start + 4096));
      back.page(block, pageIndex, source, start);
    },
    zeroPage(block, pageIndex, fill) {
      if (pageIndex * 4096 >= block.lengthBytes) throw new OracleError('page outside');
      told.update(`zero ${block.name} ${pageIndex} ${fill}`);
      back.zeroPage(block, pageIndex, fill);
    },
    tailStart: (reason, name) => void told.update(`tail ${reason} ${name}`),
  };
}

/** What follows header and configuration. */
function withoutHead(stream: Buffer): Buffer {
  let lengthBytes = HEADER.length;
  new StreamDecoder({
    configuration(raw) {
      lengthBytes += raw.length;
    },
    page() {},
    zeroPage() {},
  }).feed(stream);
  return stream.subarray(lengthBytes);
}

const streamWords = [
  Buffer.from('QEVM'),
  ...['ram', 'pc.ram', 'configuration/capabilities', 'configuration/uuid', 'x-ignore-shared'].map((text) =>
    Buffer.concat([Buffer.of(text.length), Buffer.from(text)]),
  ),
  ...['0000000000000010', '0000000000000200', '0000000000001002', '0000000000001028', '7e00000002'].map((hex) =>
    Buffer.from(hex, 'hex'),
  ),
  ...['0102', '0200000002', '0300000002', '0400000009', '0800010000', '0800070004', '0600000002'].map((hex) =>
    Buffer.from(hex, 'hex'),
  ),
];

function returnPath(chunks: readonly Buffer[]): Decoded {
  const decoder = new ReturnPathDecoder({ bitmapBytes: 2 ** 20 });
  const messages: ReturnPathMessage[] = [];
  for (const chunk of chunks) {
    messages.push(...decoder.feed(chunk));
    chunk.fill(0xa5);
  }
  decoder.end();
  return { value: messages, encoded: Buffer.concat(messages.map(encodeReturnPath)), isVerbatim: true };
}

/** Where messages begin. */
function returnPathRecords(input: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at + 4 <= input.length; ) {
    at += 4 + input.readUInt16BE(at + 2);
    if (at < input.length) starts.push(at);
  }
  return starts;
}

export const streamDecoders: readonly Decoder[] = [
  {
    name: 'stream',
    seeds: () => [precopyStream(), postcopyStream(), Buffer.concat([HEADER, Buffer.of(0)]), ...realSeeds()],
    dictionary: streamWords,
    decode: (chunks) => decodeStream(chunks, false),
    isTyped,
    maxBytes: 48 * 1024,
  },
  {
    name: 'stream-nested',
    seeds: () => [Buffer.concat([Buffer.from('0800040000', 'hex'), DEVICE]), withoutHead(postcopyStream())],
    dictionary: streamWords,
    decode: (chunks) => decodeStream(chunks, true),
    isTyped,
    maxBytes: 48 * 1024,
  },
  {
    name: 'return-path',
    seeds: () => {
      const messages: ReturnPathMessage[] = [
        { type: 'pong', value: 7 },
        { type: 'request-pages', block: 'pc.ram', offsetBytes: 2 ** 33, lengthBytes: 4096, named: true },
        { type: 'request-pages', block: 'pc.ram', offsetBytes: 4096, lengthBytes: 2 ** 21, named: false },
        { type: 'received-bitmap', block: 'pc.ram', bitmap: Buffer.alloc(24, 0x5a) },
        { type: 'resume-ack', value: 1 },
        { type: 'switchover-ack' },
        { type: 'shut', value: 0 },
      ];
      return [Buffer.concat(messages.map(encodeReturnPath))];
    },
    dictionary: [Buffer.from('0123456789abcdef', 'hex'), Buffer.concat([Buffer.of(6), Buffer.from('pc.ram')])],
    records: returnPathRecords,
    decode: returnPath,
    isTyped,
  },
  {
    name: 'ram-discard',
    seeds: () => [
      encodeRamDiscard('pc.ram', [{ startBytes: 0, lengthBytes: 4096 }]),
      encodeRamDiscard('a', [
        { startBytes: 2 ** 40, lengthBytes: 2 ** 30 },
        { startBytes: 0, lengthBytes: 8192 },
      ]),
      encodeRamDiscard('', []),
    ],
    decode([bytes]) {
      const value = decodeRamDiscard(bytes!);
      const isExact = value.ranges.every(({ startBytes, lengthBytes }) => isSafe(startBytes) && isSafe(lengthBytes));
      return { value, encoded: isExact ? encodeRamDiscard(value.block, value.ranges) : undefined };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'device-state',
    seeds: () => [
      ...[
        { page_size: 4096, devices: [{ name: 'timer', instance_id: 0, vmsd_name: 'timer', version: 2, fields: [] }] },
        {
          devices: [
            {
              name: 'cpu',
              instance_id: 1,
              version: 12,
              fields: [{ name: 'env.regs', type: 'uint64', size: 8, array_len: 16 }],
              subsections: [{ vmsd_name: 'cpu/fpop', version: 1, fields: [{ name: 'x', size: 2 }], subsections: [] }],
            },
          ],
        },
      ].map((description) => {
        const json = Buffer.from(JSON.stringify(description));
        const head = Buffer.of(0, 6, 0, 0, json.length >> 8, json.length & 0xff);
        return Buffer.concat([DEVICE.subarray(-40), head, json]);
      }),
      Buffer.concat([DEVICE, Buffer.of(0)]),
    ],
    dictionary: [
      ...['"devices":[', '"subsections":[', '"fields":[', '"size":', '"array_len":', '"name":', '"vmsd_name":'],
      ...['{"toString":1}', '[[[[', ']]]]', 'null', '1e308', '-1', '"__proto__":'],
    ],
    repair(input) {
      const end = input.lastIndexOf(Buffer.of(0, 6));
      if (end < 0 || end + 6 > input.length) return input;
      input.writeUInt32BE(input.length - end - 6, end + 2);
      return input;
    },
    decode([bytes]) {
      const { deviceState, vmdesc } = splitTail(bytes!);
      return { value: [deviceState.length, vmdesc === null ? null : describeDevices(vmdesc)] };
    },
    isTyped,
    isWhole: true,
  },
];

function isSafe(value: number): boolean {
  return Number.isSafeInteger(value);
}
