import { describe, expect, test } from 'vitest';
import { newCounters } from '../../../relay/counters.js';
import type { HostPageReceipts } from '../../../relay/destination/hostPageReceipts.js';
import type { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import type { DiskPages } from '../../../relay/destination/switch/diskPages.js';
import { Placement } from '../../../relay/destination/switch/placement.js';
import { RunDigester } from '../../../relay/digest.js';
import { BatchBuilder, decodeBatch } from '../../../relay/link/batch.js';

describe('a batch', () => {
  test('is acknowledged once, when all of its references are in place, also when one of them is had at once', () => {
    const done: number[] = [];
    let unresolved = 0;
    const resolve = () => {
      if (--unresolved === 0) done.push(7);
    };
    const receipts = { expect() {}, look() {}, isHuge: () => false, done: (sequence: number) => done.push(sequence) };
    const disks = {
      has: () => false,
      overtake() {},
      refer() {
        unresolved++;
      },
      // As with what was sent ahead, and is here.
      hurry: resolve,
      restore() {},
    };
    const stream = { isAwaited: (_block: number, page: number) => page === 0 };
    const digester = new RunDigester(Buffer.alloc(32));
    const placement = new Placement(
      stream as unknown as PostcopyStream,
      disks as unknown as DiskPages,
      receipts as unknown as HostPageReceipts,
      {
        phases: { hasSwitched: true } as never,
        digester,
        counters: newCounters(),
        blocks: [{ name: 'ram', lengthBytes: 64 * 4096 }],
      },
    );
    const builder = new BatchBuilder();
    for (const page of [0, 32]) builder.addReference(0, page, 16, 0, page * 4096, digester.digest(Buffer.alloc(4096)));
    placement.batch(7, decodeBatch(builder.take(false), [64]));
    expect(done).toEqual([]);
    resolve();
    expect(done).toEqual([7]);
  });
});
