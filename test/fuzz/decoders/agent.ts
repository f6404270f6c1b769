/** What a guest's agent says. */
import { crc32 } from 'node:zlib';
import { CacheMap, countPages } from '../../../guest-agent/cacheMap.js';
import { AgentError } from '../../../guest-agent/errors.js';
import {
  decodeDisks,
  decodeDone,
  decodeError,
  decodeGroups,
  decodeHello,
  decodeRemoved,
  type GuestDisk,
  MAX_PFN,
} from '../../../guest-agent/messages.js';
import { encodeFrame, FrameDecoder, frameType } from '../../../guest-agent/protocol.js';
import { QgaReplies, type QgaReply } from '../../../guest-agent/qga/replies.js';
import { disksPayload, donePayload, groupsPayload, helloPayload, u64, varint } from '../../guest-agent/payloads.js';
import { type Decoder, require } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof AgentError && error.code === 'VMMIG_AGENT_PROTOCOL';
const session = Buffer.from('a1b2c3d4e5f60718', 'hex');
const headerBytes = 28;
const disks: GuestDisk[] = [
  { index: 0, name: 'vda', serial: 'root', sizeBytes: 2 ** 34, pciAddress: '0000:00:04.0' },
  { index: 1, name: 'vdb', serial: '', sizeBytes: 2 ** 20, pciAddress: null },
];
const groups = groupsPayload([
  {
    id: 7,
    runs: [
      { pfn: 1000, pages: 16, disk: 0, sector: 8 },
      { pfn: 1016, pages: 1, disk: 1, sector: 0 },
      { pfn: 20, pages: 4096, disk: 0, sector: 2_000_000 },
    ],
  },
  { id: 2 ** 52, untracked: true, runs: [{ pfn: 1005, pages: 3, disk: 0, sector: 4096 }] },
  { id: 7, runs: [] },
]);

function frameStarts(input: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at + headerBytes <= input.length; ) {
    at += headerBytes + input.readUInt32LE(at + 20);
    if (at < input.length) starts.push(at);
  }
  return starts;
}

/** Checksums, and the last frame's length. */
function repairFrames(input: Buffer): Buffer {
  for (let at = 0; at + headerBytes <= input.length; ) {
    const rest = input.length - at - headerBytes;
    if (input.readUInt32LE(at + 20) > rest) input.writeUInt32LE(rest, at + 20);
    const end = at + headerBytes + input.readUInt32LE(at + 20);
    input.writeUInt32LE(crc32(input.subarray(at + headerBytes, end), crc32(input.subarray(at, at + 24))), at + 24);
    at = end;
  }
  return input;
}

function payload(name: string, seeds: () => Buffer[], decode: (bytes: Buffer) => unknown): Decoder {
  return { name, seeds, decode: ([bytes]) => ({ value: decode(bytes!) }), isTyped, isWhole: true };
}

export const agentDecoders: readonly Decoder[] = [
  {
    name: 'agent-frames',
    seeds: () => {
      const hello = encodeFrame(frameType.helloAck, session, 0, helloPayload());
      const scan = [
        encodeFrame(frameType.disks, session, 1, Buffer.alloc(2)),
        encodeFrame(frameType.groups, session, 1, groups),
        encodeFrame(frameType.done, session, 1, donePayload(1, 12, 21)),
      ];
      return [
        Buffer.concat([hello, ...scan]),
        Buffer.concat([Buffer.from('the rest of something VMGA'), scan[1]!, hello, scan[2]!]),
        encodeFrame(frameType.error, session, 0, Buffer.of(2, 0)),
      ];
    },
    dictionary: ['VMGA', session, Buffer.concat([Buffer.from('VMGA\x01\x81\0\0'), session])],
    records: frameStarts,
    repair: repairFrames,
    decode(chunks) {
      const decoder = new FrameDecoder(session);
      const value: string[] = [];
      for (const chunk of chunks) {
        decoder.feed(chunk, ({ type, request, payload: bytes }) =>
          value.push(`${type} ${request} ${bytes.toString('hex')}`),
        );
        chunk.fill(0xa5);
      }
      return { value };
    },
    isTyped,
  },
  {
    name: 'qga-replies',
    seeds: () => {
      const lines = [{ return: 3 }, { return: {} }, { error: { class: 'GenericError', desc: 'no such file' } }];
      const [sync, ...rest] = lines.map((line) => Buffer.from(`${JSON.stringify(line)}\n`));
      return [
        Buffer.concat([Buffer.from('{"return": 9}\n'), Buffer.of(0xff), sync!, ...rest]),
        Buffer.concat([Buffer.of(0xff), sync!, rest[1]!, rest[0]!]),
      ];
    },
    dictionary: [Buffer.of(0xff), '"return":', '"error":', '"desc":', '{"toString":1}', '[[[[', 'null', '\n', '3'],
    decode(chunks) {
      const replies = new QgaReplies();
      replies.awaitSync(3);
      const value: QgaReply[] = [];
      for (const chunk of chunks) {
        replies.feed(chunk, (reply) => value.push(reply));
        chunk.fill(0xa5);
      }
      for (const reply of value) if ('error' in reply) require(/^\P{C}*$/u.test(reply.error), () => reply.error);
      return { value };
    },
    isTyped,
  },
  payload(
    'agent-hello',
    () => [helloPayload(), helloPayload({ protocolVersion: 9, pageSizeBytes: 65536 })],
    decodeHello,
  ),
  payload('agent-error', () => [Buffer.of(1, 0), Buffer.of(3, 0)], decodeError),
  payload(
    'agent-disks',
    () => [
      disksPayload([
        { name: 'vda', serial: 'root', sizeBytes: 2 ** 34, pci: '0000:00:04.0' },
        { name: 'nvme0n1', serial: '', sizeBytes: 2 ** 40, pci: '' },
      ]),
      disksPayload([]),
    ],
    (bytes) => {
      const found = decodeDisks(bytes);
      for (const { name, serial } of found) require(/^[ -~]*$/.test(name + serial), () => 'a text that is none');
      return found;
    },
  ),
  payload(
    'agent-groups',
    () => [groups, groupsPayload([]), groupsPayload([{ id: 0, runs: [] }])],
    (bytes) => {
      const map = new CacheMap(64);
      decodeGroups(bytes, disks, map);
      // An agent reports again, and the map is read in between.
      const first = readMap(map);
      decodeGroups(bytes, disks, map);
      require(first === readMap(map), () => 'the same groups make another map');
      return first;
    },
  ),
  payload(
    'agent-removed',
    () => [Buffer.from([...u64(7), ...u64(2 ** 52)])],
    (bytes) => {
      const ids: number[] = [];
      decodeRemoved(bytes, (id) => ids.push(id));
      return ids;
    },
  ),
  payload(
    'agent-done',
    () => [
      donePayload(1, 1200, 500_000, [
        [1, 17],
        [12, 2],
        [64, 1000],
        [65, 3],
        [66, 600_000],
      ]),
      Buffer.from([2, 0, 0, 0, 0, ...varint(0)]),
    ],
    decodeDone,
  ),
];

/** What the map says, after checking that nobody who uses it is led beyond memory or disk. */
function readMap(map: CacheMap): string {
  const runs = map.toRuns();
  let end = 0;
  for (let at = 0; at < runs.count; at++) {
    const pages = runs.pageCount[at]!;
    const disk = disks[runs.disk[at]!];
    const offset = runs.diskOffsetBytes[at]!;
    require(pages > 0 && runs.pfn[at]! >= end, () => 'runs that overlap or do not ascend');
    end = runs.pfn[at]! + pages;
    require(end <= MAX_PFN, () => 'a run beyond memory');
    require(disk !== undefined && offset >= 0 && offset + pages * 4096 <= disk.sizeBytes, () =>
      'a run beyond its disk');
    require(offset % 512 === 0, () => `offset ${offset}`);
  }
  return `${runs.count} ${countPages(runs)} ${runs.pfn.join()} ${runs.diskOffsetBytes.join()}`;
}
