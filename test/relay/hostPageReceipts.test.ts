import { describe, expect, test } from 'vitest';
import { HostPageReceipts } from '../../relay/destination/hostPageReceipts.js';
import { type BatchRecord, recordKind } from '../../relay/link/batch.js';

const sizes = [1, 8];

function bytes(block: number, page: number, count: number): BatchRecord {
  return { kind: recordKind.bytes, block, page, count, fill: 0, disk: 0, diskOffsetBytes: 0, digest: null };
}

/** Which pages QEMU has, and what the source was told. */
class Rig {
  readonly here = new Set<string>();
  readonly told: string[] = [];
  readonly receipts = new HostPageReceipts(
    sizes,
    (block, page) => this.here.has(`${block}:${page}`),
    {
      acknowledge: (sequence) => this.told.push(`acknowledged ${sequence}`),
      giveBack: (sequence) => this.told.push(`given back ${sequence}`),
    },
    false,
  );

  batch(sequence: number, ...records: BatchRecord[]): void {
    this.receipts.expect(sequence, records);
    this.receipts.done(sequence);
  }

  place(block: number, page: number, count: number): void {
    for (let at = page; at < page + count; at++) this.here.add(`${block}:${at}`);
    this.receipts.look();
  }
}

describe('What came of huge host pages', () => {
  test('is acknowledged at the switch where QEMU kept it, and given back where it was dropped', () => {
    const rig = new Rig();
    rig.batch(0, bytes(0, 3, 4));
    expect(rig.told).toEqual(['acknowledged 0']);
    rig.batch(1, bytes(1, 0, 8));
    rig.batch(2, bytes(1, 8, 4), bytes(0, 9, 1));
    rig.place(1, 0, 8);
    expect(rig.told).toHaveLength(1);
    rig.receipts.switched();
    expect(rig.told.slice(1).sort()).toEqual(['acknowledged 1', 'given back 2']);
  });

  test('is acknowledged after the switch when its host pages are complete', () => {
    const rig = new Rig();
    rig.receipts.switched();
    rig.batch(5, bytes(1, 4, 8));
    rig.batch(6, bytes(1, 0, 4));
    rig.place(1, 0, 8);
    expect(rig.told).toEqual(['acknowledged 6']);
    rig.place(1, 8, 8);
    expect(rig.told).toEqual(['acknowledged 6', 'acknowledged 5']);
  });

  test('is not given back while it is still being read from the disk', () => {
    const rig = new Rig();
    rig.receipts.expect(7, [bytes(1, 16, 8)]);
    rig.receipts.switched();
    rig.place(1, 16, 8);
    expect(rig.told).toEqual([]);
    rig.receipts.done(7);
    expect(rig.told).toEqual(['acknowledged 7']);
  });
});
