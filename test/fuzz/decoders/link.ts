/** What the relays say to each other. */
import { isDeepStrictEqual } from 'node:util';
import { heldDisk } from '../../../pager/index.js';
import { parseBlocks, parseCapture, parseMemory } from '../../../relay/destination/blocksFrame.js';
import { SentAhead } from '../../../relay/destination/sentAhead.js';
import { RunDigester } from '../../../relay/digest.js';
import { RelayError } from '../../../relay/errors.js';
import { decodeBatch, packPages, unpackPages } from '../../../relay/link/batch.js';
import { decodeFault, encodeFault } from '../../../relay/link/faults.js';
import { encodeFrameHeader, FrameDecoder, frameHeaderBytes, frameType } from '../../../relay/link/frames.js';
import { parseGreeting, whyNot } from '../../../relay/link/greeting.js';
import { decodeHints, decodeInPlace, encodeHints, encodeInPlace } from '../../../relay/link/hints.js';
import { OrderedInbox } from '../../../relay/link/inbox.js';
import { encodePlaced, PlacedPages } from '../../../relay/link/placed.js';
import { decodeReceipt } from '../../../relay/link/receipts.js';
import { decodeResend, decodeResendRequest, encodeResend, encodeResendRequest } from '../../../relay/link/resend.js';
import { decodeSequences, encodeSequences } from '../../../relay/link/sequences.js';
import { decodeRemoteSet, encodeRemoteSet } from '../../../relay/store/remoteSet.js';
import { encodeWireBatch, pageOf } from '../../relay/wire.js';
import { type Decoder, require } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof RelayError;
/** A guest of three blocks. */
const guest = [4096, 64, 100_000];
const digest = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const credentials = { migrationId: 'fuzzed', key: Buffer.alloc(32, 7) };
const runDigester = new RunDigester(credentials.key);

/** Of frames, or whatever else has its length in front. */
function frameStarts(input: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at + frameHeaderBytes <= input.length; ) {
    at += frameHeaderBytes + input.readUInt32BE(at);
    if (at < input.length) starts.push(at);
  }
  return starts;
}

function frame(type: number, sequence: number, payload: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(payload as string);
  return Buffer.concat([encodeFrameHeader(type, sequence, bytes.length), bytes]);
}

const json = ['"blocks":', '"name":', '"lengthBytes":', '"section":', '"head":', '{}', '[]', 'null', '1e308', '-1'];
const jsonWords = [...json, '{"toString":1}', '[[[[[[', '"__proto__":', '4096', '9007199254740993', '"\\ud800"'];

function jsonDecoder(name: string, parse: (payload: Buffer) => unknown, seeds: readonly object[]): Decoder {
  return {
    name,
    seeds: () => seeds.map((seed) => Buffer.from(JSON.stringify(seed))),
    dictionary: jsonWords,
    decode: ([payload]) => ({ value: parse(payload!) }),
    isTyped,
    isWhole: true,
  };
}

const blocks = [
  { name: 'pc.ram', lengthBytes: 2 ** 30, pageSizeBytes: null },
  { name: '/rom@etc/acpi/tables', lengthBytes: 2 ** 17, pageSizeBytes: 4096 },
];

export const linkDecoders: readonly Decoder[] = [
  {
    name: 'link-frames',
    seeds: () => [
      Buffer.concat([
        frame(frameType.blocks, 0, '{}'),
        frame(frameType.batch, 1, Buffer.alloc(300, 1)),
        frame(frameType.acknowledge, 0, Buffer.alloc(8)),
        frame(frameType.go, 2),
      ]),
      frame(frameType.ping, 0, Buffer.alloc(8)),
    ],
    records: frameStarts,
    decode(chunks) {
      const decoder = new FrameDecoder();
      const value: Buffer[] = [];
      let bytes = 0;
      for (const chunk of chunks) {
        for (const { type, sequence, payload } of decoder.feed(chunk)) value.push(frame(type, sequence, payload));
        bytes += chunk.length;
      }
      const encoded = Buffer.concat(value);
      require(bytes - encoded.length === decoder.bufferedBytes, () => 'bytes that are in no frame and not kept');
      require(decoder.takeRest().length === bytes - encoded.length, () => 'a rest that is not the rest');
      return { value: encoded, encoded };
    },
    isTyped,
  },
  {
    name: 'greeting',
    seeds: () => {
      const hello = { protocol: 'vmmig-link', version: 2, migrationId: 'fuzzed', connection: 0, connections: 2 };
      const resume = { session: '00'.repeat(16), attempt: 1, received: 10 };
      const said = [
        hello,
        { ...hello, resume },
        { ...hello, version: 7 },
        { version: 2, received: 4 },
        { message: 'no' },
      ];
      return said.map((each) => Buffer.from(JSON.stringify(each)));
    },
    dictionary: [...jsonWords, '"protocol":"vmmig-link"', '"version":', '"resume":', '"connection":', '"connections":'],
    decode([payload]) {
      const said = { type: frameType.hello, sequence: 0, payload: payload! };
      const words = parseGreeting(said);
      return { value: whyNot(said, words as never, credentials) };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'batch',
    seeds: () => {
      const pages = Buffer.concat([pageOf(1), pageOf(2), Buffer.alloc(4096, 'text')]);
      const packed = packPages(pages).subarray(1);
      const records = [
        { kind: 0, fill: 0, page: 4, count: 60_000, block: 2 },
        { kind: 1, page: 100, count: 2 },
        { kind: 2, block: 2, page: 70_000, count: 64, disk: 1, diskOffsetBytes: 2 ** 40, digest },
        { kind: 1, block: 1, page: 63, count: 1 },
      ];
      return [
        encodeWireBatch({ records, pages }),
        encodeWireBatch({ encoding: 1, records, rawBytes: pages.length, pages: Buffer.from(packed) }),
        encodeWireBatch({ records: [records[2]!] }),
        encodeWireBatch({ records: [] }),
      ];
    },
    maxBytes: 20_000,
    decode([payload]) {
      const batch = decodeBatch(payload!, guest);
      const records = batch.records.map((record) => {
        const { block, page, count } = record;
        require(count > 0 && page + count <= guest[block]!, () => `run of ${count} at ${page} of block ${block}`);
        return record.digest === null ? { ...record, digest: Buffer.alloc(0) } : { ...record, digest: record.digest };
      });
      const pages = Buffer.from(batch.pages);
      const carried = records.reduce((sum, { kind, count }) => sum + (kind === 1 ? count : 0), 0);
      require(pages.length === carried * 4096, () => `${pages.length} bytes for ${carried} pages`);
      return { value: { records, pages }, encoded: encodeWireBatch({ records, pages }) };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'hints',
    seeds: () => [
      ...encodeHints([
        { block: 0, page: 0, count: 64, disk: 0, diskOffsetBytes: 4096 },
        { block: 0, page: 64, count: 1, disk: 1, diskOffsetBytes: 2 ** 44 + 512 },
        { block: 2, page: 90_000, count: 10_000, disk: 0, diskOffsetBytes: 0 },
      ]),
      ...encodeHints(
        Array.from({ length: 300 }, (_, at) => ({
          block: 0,
          page: at * 9,
          count: 3,
          disk: 0,
          diskOffsetBytes: at * 65536,
        })),
      ),
      Buffer.alloc(5),
    ],
    repair: repairPlain(4),
    decode([payload]) {
      const value = decodeHints(payload!, guest);
      let end = 0;
      let last = 0;
      for (const { block, page, count, diskOffsetBytes } of value) {
        require(block > last || page >= end, () => 'runs that do not ascend');
        require(count > 0 && page + count <= guest[block]!, () => `run of ${count} at ${page} of block ${block}`);
        require(Number.isSafeInteger(diskOffsetBytes) && diskOffsetBytes >= 0, () => `offset ${diskOffsetBytes}`);
        end = page + count;
        last = block;
      }
      const isShort = value.length > 0 && value.every(({ disk }) => disk < 2 ** 32);
      return { value, encoded: isShort ? encodeHints(value)[0] : undefined };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'in-place',
    seeds: () => [encodeInPlace({ block: 1, page: 77, digest })],
    decode([payload]) {
      const value = decodeInPlace(payload!);
      return { value, encoded: encodeInPlace(value), isVerbatim: true };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'remote-set',
    seeds: () => [
      encodeRemoteSet([new Uint32Array([0, 1, 5, 4000]), new Uint32Array(0), new Uint32Array([3, 70_000])]),
      encodeRemoteSet([
        new Uint32Array(Array.from({ length: 400 }, (_, at) => (at % 2 === 0 ? at * 5 : 2))),
        new Uint32Array([0, 64]),
        new Uint32Array(0),
      ]),
    ],
    repair: repairPlain(4),
    decode([payload]) {
      const value = decodeRemoteSet(payload!, guest);
      checkRuns(value);
      return { value, encoded: encodeRemoteSet(value) };
    },
    isTyped,
    isWhole: true,
  },
  {
    // As frames: the sequence is the piece's place.
    name: 'placed',
    seeds: () => {
      const many = new Uint32Array(Array.from({ length: 1000 }, (_, at) => (at % 2 === 0 ? at * 90 : 3)));
      const whole = encodePlaced([new Uint32Array([0, 4096]), new Uint32Array(0), many])[0]!;
      const set = whole.subarray(2);
      const pieces = [0, 1, 2].map((at) =>
        Buffer.concat([Buffer.of(0, 3), set.subarray(at * 20, at === 2 ? undefined : at * 20 + 20)]),
      );
      return [
        frame(frameType.placed, 0, whole),
        Buffer.concat([2, 0, 1].map((at) => frame(frameType.placed, at, pieces[at]!))),
      ];
    },
    records: frameStarts,
    decode([bytes]) {
      const placed = new PlacedPages(guest);
      for (const { sequence, payload } of new FrameDecoder().feed(bytes!)) {
        if (!placed.add(sequence, payload)) continue;
        const marks = guest.map((_, block) => Array.from({ length: 64 }, (_, page) => placed.has(block, page)));
        return { value: marks };
      }
      return { value: 'incomplete' };
    },
    isTyped,
    isWhole: true,
  },
  {
    // As frames: the memory, pages of it, and batches with references to these.
    name: 'sent-ahead',
    seeds: () => {
      const memory = { blocks: guest.map((pages, at) => ({ name: `m${at}`, lengthBytes: pages * 4096 })) };
      const named = frame(frameType.memory, 0, JSON.stringify(memory));
      const pages = Buffer.concat([1, 2, 3, 4].map(pageOf));
      const packed = Buffer.from(packPages(pages).subarray(1));
      const carried = { encoding: 1, rawBytes: pages.length, pages: packed };
      const ahead = (block: number, page: number) =>
        frame(frameType.ahead, 1, encodeWireBatch({ ...carried, records: [{ kind: 1, block, page, count: 4 }] }));
      const reference = (block: number, page: number) => {
        const right = { kind: 2, disk: heldDisk, block, page, count: 4, digest: runDigester.digest(pages) };
        return frame(frameType.batch, 2, encodeWireBatch({ records: [right, { ...right, page: page + 16, digest }] }));
      };
      return [
        Buffer.concat([named, ahead(0, 3), ahead(2, 99_000), reference(0, 3), reference(2, 99_000)]),
        Buffer.concat([named, ...[0, 4, 14, 17, 32].map((page) => ahead(1, page)), reference(1, 4)]),
      ];
    },
    records: frameStarts,
    dictionary: jsonWords,
    maxBytes: 20_000,
    decode([bytes]) {
      const limitBytes = 12 * 4096;
      const ahead = new SentAhead(runDigester, limitBytes);
      const value: string[] = [];
      for (const { type, payload } of new FrameDecoder().feed(bytes!)) {
        if (type === frameType.memory) ahead.announce(payload);
        else if (type === frameType.ahead) ahead.hold(payload);
        else if (type === frameType.batch)
          for (const { block, page, count, disk, digest: told } of decodeBatch(payload, guest).records) {
            if (disk !== heldDisk) continue;
            const taken = ahead.held.take(block, page, count, told!);
            const isRight =
              taken === null || (taken.length === count * 4096 && runDigester.digest(taken).equals(told!));
            require(isRight, () => `other pages than those at ${page} of block ${block}`);
            value.push(taken === null ? 'none' : `${block}/${page}`);
          }
        const { heldBytes } = ahead.held;
        require(heldBytes >= 0 && heldBytes <= limitBytes, () => `${heldBytes} bytes are held`);
      }
      return { value };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'fault',
    seeds: () => [encodeFault({ block: 2, page: 99_999, count: 1 })],
    decode([payload]) {
      const value = decodeFault(payload!);
      return { value, encoded: encodeFault(value), isVerbatim: true };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'resend-request',
    seeds: () => [encodeResendRequest(4095)],
    decode([payload]) {
      const value = decodeResendRequest(payload!);
      return { value, encoded: value < 0 ? undefined : encodeResendRequest(value), isVerbatim: true };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'resend',
    seeds: () => [
      encodeResend(encodeResendRequest(3), Buffer.concat([pageOf(3), pageOf(4)])),
      encodeResend(encodeResendRequest(3), Buffer.from(Array.from({ length: 8192 }, (_, at) => (at * at * 31) % 251))),
    ],
    decode([payload]) {
      const { record, encoding, packed } = decodeResend(payload!);
      const pages = Buffer.from(unpackPages(encoding, packed, 8192));
      require(pages.length === 8192, () => `${pages.length} bytes for two pages`);
      return { value: { record, pages }, encoded: encodeResend(encodeResendRequest(record), pages) };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'sequences',
    seeds: () => [encodeSequences([0]), encodeSequences([1, 2, 2 ** 31, 2 ** 32 - 1])],
    decode([payload]) {
      const value = decodeSequences(payload!);
      return { value, encoded: encodeSequences(value), isVerbatim: true };
    },
    isTyped,
    isWhole: true,
  },
  {
    name: 'receipt',
    seeds: () => [Buffer.alloc(24), Buffer.alloc(24, 0xff)],
    decode: ([payload]) => ({ value: decodeReceipt(payload!, 3) }),
    isTyped,
    isWhole: true,
  },
  {
    name: 'ordered-inbox',
    seeds: () => [
      Buffer.concat([3, 1, 0, 2, 5, 4].map((sequence) => frame(frameType.batch, sequence, Buffer.alloc(sequence)))),
    ],
    records: frameStarts,
    decode([bytes]) {
      const order: number[] = [];
      const inbox = new OrderedInbox(({ sequence }) => order.push(sequence));
      for (const each of new FrameDecoder().feed(bytes!)) inbox.add(each);
      require(isDeepStrictEqual(order, [...order.keys()]), () => `order ${order}`);
      return { value: order.length };
    },
    isTyped,
    isWhole: true,
  },
  jsonDecoder('blocks', parseBlocks, [
    { sectionId: 2, blocks },
    { sectionId: 0, blocks: [] },
  ]),
  jsonDecoder('memory', parseMemory, [{ blocks }]),
  jsonDecoder('capture', parseCapture, [
    { section: { id: 2, version: 4 }, head: Buffer.from('QEVM\0\0\0\x03').toString('base64'), blocks },
  ]),
];

/** Packed pages after so many bytes of length: the length is made right where they are plain. */
function repairPlain(lengthBytes: number): (input: Buffer) => Buffer {
  return (input) => {
    if (input.length <= lengthBytes) return input;
    if (input.length % 4 !== 0) input[lengthBytes] = 0;
    if (input[lengthBytes] === 0) input.writeUInt32BE(input.length - lengthBytes - 1, 0);
    return input;
  };
}

function checkRuns(runsOfBlock: readonly Uint32Array[]): void {
  for (const [block, runs] of runsOfBlock.entries())
    for (let at = 0, end = -1; at < runs.length; at += 2) {
      require(runs[at]! > end, () => 'runs that are not apart');
      end = runs[at]! + runs[at + 1]!;
      require(runs[at + 1]! > 0 && end <= guest[block]!, () => `run up to ${end} of block ${block}`);
    }
}
