/** What an NBD server says. */
import { createHash } from 'node:crypto';
import { DiskError } from '../../../disk/errors.js';
import { type NbdExport, Negotiation } from '../../../disk/nbd/negotiation.js';
import { PendingRead } from '../../../disk/nbd/pendingRead.js';
import {
  CHUNK_MAGIC,
  chunkType,
  FLAG_DONE,
  INIT_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  option,
  optionReply,
  SIMPLE_REPLY_MAGIC,
} from '../../../disk/nbd/protocol.js';
import { ReplyDecoder } from '../../../disk/nbd/replies.js';
import { type Decoded, type Decoder, require } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof DiskError;

function be(width: 2 | 4 | 8, value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes.subarray(8 - width);
}

function reply(to: number, type: number, ...data: Buffer[]): Buffer {
  const bytes = Buffer.concat(data);
  return Buffer.concat([be(8, OPTION_REPLY_MAGIC), be(4, to), be(4, type), be(4, bytes.length), bytes]);
}

function chunk(type: number, cookie: number, isLast: boolean, ...payload: Buffer[]): Buffer {
  const bytes = Buffer.concat(payload);
  const head = [be(4, CHUNK_MAGIC), be(2, isLast ? FLAG_DONE : 0), be(2, type), be(8, cookie), be(4, bytes.length)];
  return Buffer.concat([...head, bytes]);
}

function simple(cookie: number, error: number, data: Buffer): Buffer {
  return Buffer.concat([be(4, SIMPLE_REPLY_MAGIC), be(4, error), be(8, cookie), data]);
}

const greeting = [be(8, INIT_MAGIC), be(8, OPTION_MAGIC)];
const size = reply(option.go, optionReply.info, be(2, 0), be(8, 2 ** 40), be(2, 1));
const blockSizes = reply(option.go, optionReply.info, be(2, 3), be(4, 512), be(4, 4096), be(4, 2 ** 25));
const negotiations = [
  [...greeting, be(2, 3), reply(option.structuredReply, optionReply.ack), blockSizes, size, reply(option.go, 1)],
  [...greeting, be(2, 3), reply(option.structuredReply, optionReply.unsupported, Buffer.from('no')), size, reply(7, 1)],
  [
    ...greeting,
    be(2, 1),
    reply(8, optionReply.ack),
    reply(7, optionReply.unsupported),
    be(8, 4096),
    be(2, 1),
    Buffer.alloc(124),
  ],
  [...greeting, be(2, 2), be(8, 2 ** 30), be(2, 1)],
].map((parts) => Buffer.concat(parts));

function negotiate(chunks: readonly Buffer[]): Decoded {
  const negotiation = new Negotiation('disk');
  let said = 0;
  let result: NbdExport | undefined;
  for (const each of chunks) {
    if (result !== undefined) break;
    const used = negotiation.feed(each);
    require(used <= each.length, () => `${used} of ${each.length} bytes were used`);
    each.fill(0xa5);
    said += negotiation.takeOutput().length;
    result = negotiation.result;
  }
  require(said < 500, () => `${said} bytes were sent`);
  const { sizeBytes = 0, minBlockBytes = 1, maxRequestBytes = 1 } = result ?? {};
  require(Number.isSafeInteger(sizeBytes) && maxRequestBytes >= minBlockBytes && minBlockBytes > 0, () => 'sizes');
  return { value: [result ?? null, said] };
}

/** Three reads that are under way, the last of two that want the same. */
function answer(chunks: readonly Buffer[], isStructured: boolean): Decoded {
  const memory = Buffer.alloc(20_480, 0xee);
  const wanted = (start: number, end: number, targetOffset: number) => {
    return new PendingRead(start, end, [{ start, end, target: memory, targetOffset }]);
  };
  const reads = new Map([
    [0, wanted(0, 4096, 0)],
    [1, wanted(2 ** 40, 2 ** 40 + 8192, 4096)],
    [2, wanted(512, 4608, 12_288)],
  ]);
  const finished: (number | string)[] = [];
  const decoder = new ReplyDecoder(
    {
      get: (cookie) => reads.get(cookie),
      finish(cookie, read) {
        require(reads.delete(cookie), () => `read ${cookie} ends twice`);
        require(read.failure !== undefined || read.isComplete, () => `read ${cookie} is not complete`);
        finished.push(cookie, read.failure?.message ?? 'ok');
      },
    },
    isStructured,
  );
  for (const each of chunks) {
    decoder.feed(each);
    each.fill(0xa5);
  }
  require(memory.subarray(16_384).every((byte) => byte === 0xee), () => 'written beyond what was wanted');
  return { value: [...finished, createHash('sha1').update(memory).digest('hex')] };
}

const words = [be(4, CHUNK_MAGIC), be(4, SIMPLE_REPLY_MAGIC), be(8, OPTION_REPLY_MAGIC), be(8, 2 ** 40), be(4, 4104)];

export const diskDecoders: readonly Decoder[] = [
  {
    name: 'nbd-negotiation',
    seeds: () => negotiations,
    dictionary: [...words, be(8, INIT_MAGIC), be(8, OPTION_MAGIC), be(4, optionReply.unsupported)],
    decode: negotiate,
    isTyped,
  },
  {
    name: 'nbd-chunks',
    seeds: () => [
      Buffer.concat([
        chunk(chunkType.data, 1, false, be(8, 2 ** 40 + 4096), Buffer.alloc(4096, 1)),
        chunk(chunkType.data, 0, true, be(8, 0), Buffer.alloc(4096, 2)),
        chunk(chunkType.hole, 1, true, be(8, 2 ** 40), be(4, 4096)),
        chunk(2 ** 15 + 1, 2, true, be(4, 5), be(2, 3), Buffer.from('bad')),
      ]),
      Buffer.concat([
        chunk(chunkType.hole, 2, false, be(8, 512), be(4, 4096)),
        chunk(chunkType.errorOffset, 1, false, be(4, 5), be(2, 0), be(8, 2 ** 40 + 1)),
        chunk(chunkType.none, 2, true),
      ]),
    ],
    dictionary: words,
    decode: (chunks) => answer(chunks, true),
    isTyped,
  },
  {
    name: 'nbd-replies',
    seeds: () => [
      Buffer.concat([
        simple(1, 0, Buffer.alloc(8192, 1)),
        simple(0, 5, Buffer.alloc(0)),
        simple(2, 0, Buffer.alloc(4096, 2)),
      ]),
    ],
    dictionary: words,
    decode: (chunks) => answer(chunks, false),
    isTyped,
    maxBytes: 20_000,
  },
];
