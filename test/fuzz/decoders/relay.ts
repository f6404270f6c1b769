/** QEMU's stream, as the two kinds of source relay take it: beyond the decoder, there is what they make of it. */

import { HeldPages, heldDisk, type MemorySource } from '../../../pager/index.js';
import { BufferPool } from '../../../relay/bufferPool.js';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import { RelayError } from '../../../relay/errors.js';
import { BatchBuilder, decodeBatch, maxBatchPages, recordKind } from '../../../relay/link/batch.js';
import { frameType, maxFramePayloadBytes } from '../../../relay/link/frames.js';
import { SentAhead } from '../../../relay/source/sentAhead.js';
import { StreamToFrames } from '../../../relay/source/streamToFrames.js';
import { StreamToStore } from '../../../relay/source/streamToStore.js';
import { StreamDecoder } from '../../../stream/decoder.js';
import { StreamError } from '../../../stream/errors.js';
import { RelayRig } from '../../relay/rig.js';
import { contents, DEVICE, EOF, HEADER, memSize, page, precopyStream, section, zero } from '../../stream/bytes.js';
import { type Decoded, type Decoder, require } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof StreamError || error instanceof RelayError;
/** What a guest of this size takes for digests is no finding. */
const limits = { ramBytes: 2 ** 28 };
const digester = new RunDigester(Buffer.alloc(32, 3));
/** Some of the pages are cached. */
const cacheMap = () =>
  RelayRig.map([
    [0, 3, 10],
    [5, 2, 0],
  ]);

function seeds(): Buffer[] {
  const plain = Buffer.concat([
    HEADER,
    section('start', memSize(['pc.ram', 0x8000])),
    section('part', page(0, contents(1), 'pc.ram'), page(1, contents(2)), zero(2), page(5, contents(3)), zero(7, 9)),
    section('part', page(1, contents(4))),
    section('end', page(3, contents(5))),
    DEVICE,
    EOF,
  ]);
  return [plain, precopyStream()];
}

function feedAll(relay: StreamToFrames, chunks: readonly Buffer[]): void {
  const decoder = new StreamDecoder(relay, limits);
  try {
    for (const chunk of chunks) decoder.feed(chunk);
    decoder.end();
    relay.flush();
  } finally {
    relay.close();
  }
}

/** Frames that any destination can take. */
function toFrames(chunks: readonly Buffer[]): Decoded {
  const frames: string[] = [];
  let pagesOfBlock: number[] = [];
  const relay: StreamToFrames = new StreamToFrames(
    {
      ordered(type, payload) {
        require(payload.length <= maxFramePayloadBytes, () => `frame of ${payload.length} bytes`);
        if (type === frameType.blocks)
          pagesOfBlock = JSON.parse(payload.toString()).blocks.map(
            (each: { lengthBytes: number }) => each.lengthBytes / 4096,
          );
        if (type === frameType.batch) decodeBatch(payload, pagesOfBlock);
        frames.push(`${type} ${type === frameType.tail ? '' : payload.length}`);
      },
      ramEnded() {},
    },
    newCounters(),
    { elide: true, compress: false },
    digester,
    new BufferPool(64 * 4096, 4),
  );
  relay.setCacheMap(cacheMap());
  feedAll(relay, chunks);
  // A tail has as many frames as chunks.
  return { value: [frames.filter((each) => each !== `${frameType.tail} `), relay.root().toString('hex')] };
}

/** Few pages to a group, so that an input can have all of them. */
const aheadPages = new Map([0, 1, 2, 17, 19, 40].map((at) => [at, contents(at)]));
const aheadBlock = { name: 'pc.ram', lengthBytes: 64 * 4096 };

function aheadSeeds(): Buffer[] {
  const same = (at: number) => page(at, aheadPages.get(at)!);
  const begun = [HEADER, section('start', memSize([aheadBlock.name, aheadBlock.lengthBytes]))];
  const first = page(0, aheadPages.get(0)!, aheadBlock.name);
  const whole = section('part', first, same(1), same(2), same(17), zero(18), same(19), same(40), zero(41));
  const changed = section('part', first, same(1), page(2, contents(9)), same(17), zero(18, 7), same(19));
  return [
    Buffer.concat([...begun, whole, section('end', same(1), page(40, contents(4))), DEVICE, EOF]),
    Buffer.concat([...begun, changed, section('end', same(40)), DEVICE, EOF]),
    Buffer.concat([...begun, section('part', first, same(1)), section('end', same(2), zero(40, 7)), DEVICE, EOF]),
    precopyStream(),
  ];
}

/** Some of the memory was sent ahead. The destination has all that is referred to, and puts together what QEMU sent. */
function toHeld(chunks: readonly Buffer[]): Decoded {
  const source: MemorySource = {
    read(offset, lengthBytes, into, start = 0) {
      for (let at = 0; at < lengthBytes; at += 4096)
        into.fill(aheadPages.get((offset + at) / 4096) ?? 0, start + at, start + at + 4096);
    },
    async *dataRuns() {},
    nextData: (offset) => offset,
  };
  const memory = { blocks: [{ ...aheadBlock, place: { file: source, fileOffset: 0 } }], limitBytes: 2 ** 20 };
  const ahead = new SentAhead(memory);
  const held = new HeldPages(digester, 2 ** 20);
  const builder = new BatchBuilder();
  while (!ahead.isOver) ahead.fill(builder, maxBatchPages);
  const sent = decodeBatch(builder.take(false), [64]);
  let from = 0;
  for (const { block, page: first, count } of sent.records) {
    held.hold(block, first, count, sent.pages, from);
    from += count * 4096;
  }
  const put = new Map<string, Buffer>();
  const place = (block: number, first: number, bytes: Buffer) => {
    for (let at = 0; at < bytes.length; at += 4096)
      put.set(`${block}/${first + at / 4096}`, Buffer.from(bytes.subarray(at, at + 4096)));
  };
  let pagesOfBlock: number[] = [];
  let references = 0;
  const batch = (payload: Buffer) => {
    const { records, pages } = decodeBatch(payload, pagesOfBlock);
    let at = 0;
    for (const { kind, block, page: first, count, fill, disk, digest } of records) {
      if (kind === recordKind.fill) place(block, first, Buffer.alloc(count * 4096, fill));
      else if (kind === recordKind.bytes) {
        place(block, first, pages.subarray(at, at + count * 4096));
        at += count * 4096;
      } else {
        const taken = disk === heldDisk ? held.take(block, first, count, digest!) : null;
        require(taken !== null, () => `reference to ${count} pages at ${first} that are not held`);
        place(block, first, taken!);
        references += count;
      }
    }
  };
  const relay: StreamToFrames = new StreamToFrames(
    {
      ordered(type, payload) {
        if (type === frameType.blocks)
          pagesOfBlock = JSON.parse(payload.toString()).blocks.map(
            (each: { lengthBytes: number }) => each.lengthBytes / 4096,
          );
        if (type === frameType.batch) batch(payload);
      },
      ramEnded() {},
    },
    newCounters(),
    { elide: true, compress: false },
    digester,
    new BufferPool(64 * 4096, 4),
  );
  relay.useAhead(ahead);
  const told = new Map<string, Buffer>();
  const plain = new StreamDecoder(
    {
      page: ({ index }, at, bytes, start) =>
        told.set(`${index}/${at}`, Buffer.from(bytes.subarray(start, start + 4096))),
      zeroPage: ({ index }, at, fill) => told.set(`${index}/${at}`, Buffer.alloc(4096, fill)),
    },
    limits,
  );
  feedAll(relay, chunks);
  for (const chunk of chunks) plain.feed(chunk);
  require(put.size === told.size, () => `${put.size} pages of ${told.size}`);
  for (const [key, bytes] of told) require(put.get(key)?.equals(bytes) === true, () => `another page ${key}`);
  return { value: [references, relay.root().toString('hex')] };
}

function toStore(chunks: readonly Buffer[]): Decoded {
  const told: string[] = [];
  const put =
    (what: string) =>
    (...[block, page, third]: unknown[]) =>
      void told.push(`${what} ${block} ${page} ${typeof third === 'number' ? third : ''}`);
  const relay: StreamToStore = new StreamToStore(
    {
      began({ head, section: { id }, blocks }) {
        told.push(`began ${head.length} ${id} ${blocks.map(({ name }) => name)}`);
        return { putPage: put('page'), putFill: put('fill'), putReference: put('reference') } as never;
      },
      ramEnded: () => void told.push('end'),
    },
    newCounters(),
    digester,
  );
  relay.setCacheMap(cacheMap());
  const decoder = new StreamDecoder(relay, limits);
  for (const chunk of chunks) decoder.feed(chunk);
  decoder.end();
  relay.flush();
  return { value: [told, relay.deviceTail.length] };
}

export const relayDecoders: readonly Decoder[] = [
  { name: 'relay-teleport', seeds, decode: toFrames, isTyped, cost: 5, maxBytes: 40 * 1024, heldBytes: 32 * 2 ** 20 },
  {
    name: 'relay-ahead',
    seeds: aheadSeeds,
    decode: toHeld,
    isTyped,
    cost: 5,
    maxBytes: 40 * 1024,
    heldBytes: 32 * 2 ** 20,
  },
  { name: 'relay-capture', seeds, decode: toStore, isTyped, cost: 5, maxBytes: 40 * 1024, heldBytes: 32 * 2 ** 20 },
];
