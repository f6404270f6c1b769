/** QEMU's stream, as the two kinds of source relay take it: beyond the decoder, there is what they make of it. */

import { BufferPool } from '../../../relay/bufferPool.js';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import { RelayError } from '../../../relay/errors.js';
import { decodeBatch } from '../../../relay/link/batch.js';
import { frameType, maxFramePayloadBytes } from '../../../relay/link/frames.js';
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
  const decoder = new StreamDecoder(relay, limits);
  for (const chunk of chunks) decoder.feed(chunk);
  decoder.end();
  relay.flush();
  // A tail has as many frames as chunks.
  return { value: [frames.filter((each) => each !== `${frameType.tail} `), relay.root().toString('hex')] };
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
  { name: 'relay-capture', seeds, decode: toStore, isTyped, cost: 5, maxBytes: 40 * 1024, heldBytes: 32 * 2 ** 20 },
];
