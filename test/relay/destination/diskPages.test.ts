import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { DiskReader } from '../../../disk/diskReader.js';
import { HeldPages } from '../../../pager/index.js';
import { newCounters } from '../../../relay/counters.js';
import type { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { DiskPages } from '../../../relay/destination/switch/diskPages.js';
import { RunDigester } from '../../../relay/digest.js';
import { recordKind } from '../../../relay/link/batch.js';

const pageBytes = 4096;

test('disks are read on after a wait for QEMU, though nothing else happens', async () => {
  const digester = new RunDigester(Buffer.alloc(32));
  const bytes = Buffer.alloc(16 * pageBytes, 5);
  const disk = {
    read: async (_offset: number, lengthBytes: number, allocate: () => Buffer) => {
      const into = allocate();
      bytes.copy(into, 0, 0, lengthBytes);
      return into;
    },
  };
  let drain = () => {};
  const placed: number[] = [];
  const stream = {
    ...{ backlogBytes: 0, collectedBytes: 0 },
    drained: () => new Promise<void>((resolve) => (drain = resolve)),
    place: (_block: number, page: number, count: number) => placed.push(page, count),
  };
  const done: number[] = [];
  const pages = new DiskPages(
    stream as unknown as PostcopyStream,
    { hasSwitched: true, isLoading: false },
    {
      disks: [disk as unknown as DiskReader],
      held: new HeldPages(digester, 0),
      ...{ digester, counters: newCounters(), pagesOfBlock: [64] },
    },
    { askAgain: () => {}, storageSilent: () => false, batchDone: (sequence) => done.push(sequence) },
  );
  const waiting = pages.drained();
  const run = { kind: recordKind.reference, fill: 0, block: 0, page: 8, count: 16, disk: 0, diskOffsetBytes: 0 };
  pages.refer(3, 0, { ...run, digest: digester.digest(bytes) } as never);
  pages.restore();
  for (let turn = 0; turn < 5; turn++) await setImmediate();
  expect(placed).toEqual([]);
  drain();
  await waiting;
  for (let turn = 0; turn < 5; turn++) await setImmediate();
  expect([placed, done]).toEqual([[8, 16], [3]]);
});
