import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AgentError } from '../../guest-agent/errors.js';
import {
  decodeDisks,
  decodeDone,
  decodeGroups,
  decodeHello,
  decodeRemoved,
  type GuestDisk,
  type RunSink,
} from '../../guest-agent/messages.js';
import { disksPayload, donePayload, groupsPayload, helloPayload, type PlainRun, u64, varint } from './payloads.js';

const disks: GuestDisk[] = [
  { index: 0, name: 'vda', serial: 'one', sizeBytes: 1024 * 4096, pciAddress: '0000:00:01.0' },
  { index: 1, name: 'vdb', serial: '', sizeBytes: 64 * 4096 + 512, pciAddress: null },
];

function collect(payload: Buffer): string[] {
  const seen: string[] = [];
  const sink: RunSink = {
    beginGroup: (id, tracked) => seen.push(`group ${id} ${tracked}`),
    run: (pfn, pages, disk, offset) => seen.push(`${pfn}+${pages} ${disk}@${offset}`),
    endGroup: () => seen.push('end'),
  };
  decodeGroups(payload, disks, sink);
  return seen;
}

const run = (pfn: number, pages: number, disk: number, sector: number): PlainRun => ({ pfn, pages, disk, sector });

function refused(action: () => void): void {
  expect(action).toThrow(expect.objectContaining({ code: 'VMMIG_AGENT_PROTOCOL' }));
}

describe('what an agent says', () => {
  it('is read as it was written', () => {
    expect(decodeHello(helloPayload())).toEqual({
      agentVersion: '0.1.0',
      protocolVersion: 1,
      pageSizeBytes: 4096,
      walksCacheOnly: true,
      seesBlocks: false,
    });
    const plain = [
      { name: 'vda', serial: 'one', sizeBytes: 1024 * 4096, pci: '0000:00:01.0' },
      { name: 'vdb', serial: '', sizeBytes: 64 * 4096 + 512, pci: '' },
    ];
    expect(decodeDisks(disksPayload(plain))).toEqual(disks);
    const payload = groupsPayload([
      { id: 5, runs: [run(100, 2, 0, 8), run(50, 1, 1, 1), run(2 ** 31 - 4096, 64, 1, 0)] },
      { id: 2 ** 53 - 1, untracked: true, runs: [run(7, 1, 0, 1023 * 8)] },
      { id: 6, runs: [] },
    ]);
    expect(collect(payload)).toEqual([
      ...['group 5 true', '100+2 0@4096', '50+1 1@512', `${2 ** 31 - 4096}+64 1@0`, 'end'],
      ...[`group ${2 ** 53 - 1} false`, `7+1 0@${1023 * 4096}`, 'end'],
      ...['group 6 true', 'end'],
    ]);
    expect(
      decodeDone(
        donePayload(2, 123, 4567, [
          [1, 3],
          [33, 1],
          [64, 9],
          [65, 8],
          [66, 7],
          [99, 1],
        ]),
      ),
    ).toEqual({
      mode: 'changes',
      scanMs: 123,
      pages: 4567,
      skipped: { dirty: 3, 'reason-33': 1 },
      files: 9,
      uncachedNames: 8,
      fileCachePages: 7,
    });
  });

  it('is refused when a run leaves its disk, its memory or the list of disks', () => {
    const one = (each: PlainRun) => () => collect(groupsPayload([{ id: 1, runs: [each] }]));
    refused(one(run(1, 1, 0, 1024 * 8)));
    refused(one(run(1, 2, 0, 1023 * 8)));
    refused(one(run(1, 64, 1, 2)));
    refused(one(run(1, 1, 0, -1)));
    refused(one(run(-1, 1, 0, 0)));
    refused(one(run(2 ** 31, 1, 0, 0)));
    refused(one(run(1, 1, 2, 0)));
    refused(one(run(1, 4097, 0, 0)));
    expect(one(run(1, 64, 1, 1))).not.toThrow();
  });

  it('is refused when it is too much, or not what it says', () => {
    refused(() => collect(Buffer.from([...u64(1), ...varint(4097 * 2)])));
    refused(() => collect(Buffer.from([...u64(1), 2, 0x80, 0x80])));
    refused(() => collect(Buffer.from([...u64(1), ...Array(9).fill(0x80), 1])));
    refused(() => collect(Buffer.alloc(8, 0xff)));
    refused(() => decodeDisks(Buffer.from([255, 255])));
    refused(() => decodeDisks(disksPayload([{ name: 'v\nda', serial: '', sizeBytes: 1, pci: '' }])));
    refused(() => decodeDisks(disksPayload([{ name: 'vda', serial: '', sizeBytes: 1, pci: '../../etc' }])));
    refused(() => decodeDisks(Buffer.concat([disksPayload([]), Buffer.from('x')])));
    refused(() => decodeRemoved(Buffer.alloc(12), () => {}));
    refused(() => decodeDone(donePayload(3, 1, 1)));
    refused(() => decodeDone(donePayload(1, 1, 1, Array(257).fill([1, 1]))));
  });

  it('is nothing but an AgentError when it is garbage', () => {
    const decoders = [decodeHello, decodeDisks, decodeDone, collect, (bytes: Buffer) => decodeRemoved(bytes, () => {})];
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(decoders.length - 1), (bytes, which) => {
        try {
          decoders[which]!(Buffer.from(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(AgentError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
