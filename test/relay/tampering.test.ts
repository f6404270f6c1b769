import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { DiskReader } from '../../disk/diskReader.js';
import { type Frame, frameType } from '../../relay/link/frames.js';
import { packTail, unpackTail } from '../../relay/link/packedTail.js';
import { type Tamper, tamperingProxy } from './proxy.js';
import { pageBytes, RelayRig } from './rig.js';
import { decodeWireBatch, encodeWireBatch, type WireBatch } from './wire.js';

const pages = 256;

/** Changes the first batch in which something can be changed. */
function once(change: (batch: WireBatch) => WireBatch | null): { tamper: Tamper; done: () => boolean } {
  let isDone = false;
  return {
    done: () => isDone,
    tamper: ({ type, payload }) => {
      if (isDone || type !== frameType.batch) return payload;
      const changed = change(decodeWireBatch(payload));
      if (changed === null) return payload;
      isDone = true;
      return encodeWireBatch({ ...changed, rawBytes: changed.pages.length });
    },
  };
}

async function move(tamper: Tamper, reader: (reader: DiskReader) => DiskReader = (own) => own) {
  const disk = randomBytes(pages * pageBytes);
  await using rig = await RelayRig.start(pages, disk, { compress: false, reader, via: tamperingProxy(tamper) });
  const guest = Buffer.from(disk);
  const first: [number, Buffer | number][] = [];
  for (let page = 0; page < pages; page++) {
    // A quarter is cached, a quarter zero, and the rest is in no other place.
    if (page >= 64) randomBytes(pageBytes).copy(guest, page * pageBytes);
    if (page >= 192) guest.fill(0, page * pageBytes, (page + 1) * pageBytes);
    first.push([page, page >= 192 ? 0 : Buffer.from(guest.subarray(page * pageBytes, (page + 1) * pageBytes))]);
  }
  const second = Array.from({ length: 8 }, (_, at): [number, Buffer] => {
    const bytes = randomBytes(pageBytes);
    bytes.copy(guest, (70 + at) * pageBytes);
    return [70 + at, bytes];
  });
  rig.source.setCacheMap(RelayRig.map([[0, 64, 0]]));
  await rig.send([first, second, []]).catch(() => {});
  const outcomes = await Promise.allSettled([rig.source.finished, rig.destination.finished]);
  if (outcomes.every(({ status }) => status === 'fulfilled')) await rig.received;
  return { codes: outcomes.map(codeOf), isEqual: rig.memory.equals(guest), tail: rig.tail };
}

function codeOf(outcome: PromiseSettledResult<void>): string {
  return outcome.status === 'fulfilled' ? 'moved' : (outcome.reason as { code: string }).code;
}

/** What is caught at the end: the destination must say so, the source may hear it as its peer's giving up. */
function expectUnequal(codes: readonly string[]): void {
  expect(codes[0]).toMatch(/^VMMIG_RELAY_(VERIFY|QEMU)$/);
  expect(codes[1]).toBe('VMMIG_RELAY_VERIFY');
}

const isBytes = ({ kind }: { kind: number }) => kind === 1;

describe('the comparison at the end', () => {
  test('is equal when nothing was changed on the way', async () => {
    const { codes, isEqual, tail } = await move(({ payload }) => payload);
    expect(codes).toEqual(['moved', 'moved']);
    expect(isEqual).toBe(true);
    expect(tail.toString()).toContain('device state');
  });

  test('notices a single bit in a single page', async () => {
    const flip = once((batch) => {
      if (batch.pages.length === 0) return null;
      const changed = Buffer.from(batch.pages);
      changed[changed.length - 5]! ^= 4;
      return { ...batch, pages: changed };
    });
    expectUnequal((await move(flip.tamper)).codes);
    expect(flip.done()).toBe(true);
  });

  test('notices a page that was dropped', async () => {
    const drop = once((batch) => {
      const at = batch.records.findIndex((record) => isBytes(record) && record.count > 1);
      if (at < 0) return null;
      const records = batch.records.map((record) => ({ ...record }));
      records[at]!.count--;
      const before = batch.records.slice(0, at + 1).reduce((sum, each) => sum + (isBytes(each) ? each.count : 0), 0);
      const cut = (before - 1) * pageBytes;
      const pages = Buffer.concat([batch.pages.subarray(0, cut), batch.pages.subarray(cut + pageBytes)]);
      return { ...batch, records, pages };
    });
    expectUnequal((await move(drop.tamper)).codes);
    expect(drop.done()).toBe(true);
  });

  test('notices a whole batch that was emptied', async () => {
    const empty = once((batch) =>
      batch.records.some(isBytes) ? { ...batch, records: [], pages: Buffer.alloc(0) } : null,
    );
    expectUnequal((await move(empty.tamper)).codes);
  });

  test('notices two pages that changed places', async () => {
    const swap = once((batch) => {
      if (batch.pages.length < 2 * pageBytes) return null;
      const [first, second, rest] = [0, 1, 2].map((at) => batch.pages.subarray(at * pageBytes));
      return {
        ...batch,
        pages: Buffer.concat([second!.subarray(0, pageBytes), first!.subarray(0, pageBytes), rest!]),
      };
    });
    expectUnequal((await move(swap.tamper)).codes);
  });

  test('notices a stale page: the older version in the place of the newer one', async () => {
    let old: Buffer | null = null;
    let isDone = false;
    const tamper = ({ type, payload }: Frame) => {
      if (type !== frameType.batch) return payload;
      const batch = decodeWireBatch(payload);
      let at = 0;
      for (const record of batch.records.filter(isBytes)) {
        const place = at + (70 - record.page) * pageBytes;
        at += record.count * pageBytes;
        if (record.page > 70 || record.page + record.count <= 70) continue;
        if (old === null) old = Buffer.from(batch.pages.subarray(place, place + pageBytes));
        else {
          const pages = Buffer.from(batch.pages);
          old.copy(pages, place);
          isDone = true;
          return encodeWireBatch({ ...batch, pages });
        }
      }
      return payload;
    };
    expectUnequal((await move(tamper)).codes);
    expect(isDone).toBe(true);
  });

  test('notices a zero page that was left out, or became another', async () => {
    const fewer = once(({ records, ...batch }) => {
      if (!records.some(({ kind, count }) => kind === 0 && count > 1)) return null;
      return {
        ...batch,
        records: records.map((each) => (each.kind === 0 ? { ...each, count: each.count - 1 } : each)),
      };
    });
    expectUnequal((await move(fewer.tamper)).codes);
    const other = once(({ records, ...batch }) => {
      if (!records.some(({ kind }) => kind === 0)) return null;
      return { ...batch, records: records.map((each) => (each.kind === 0 ? { ...each, fill: 1 } : each)) };
    });
    expectUnequal((await move(other.tamper)).codes);
  });

  test('notices device state that was changed', async () => {
    const tamper: Tamper = ({ type, payload }) => {
      const isPacked = type === frameType.packedTail;
      if (type !== frameType.tail && !isPacked) return payload;
      const changed = Buffer.from(isPacked ? unpackTail(payload) : payload);
      changed[changed.length - 1]! ^= 1;
      return isPacked ? packTail(changed)! : changed;
    };
    expectUnequal((await move(tamper)).codes);
  });

  test('notices a reference that names another guest page', async () => {
    const other = once(({ records, ...batch }) => {
      if (!records.some(({ kind }) => kind === 2)) return null;
      return {
        ...batch,
        records: records.map((each) => (each.kind === 2 ? { ...each, page: each.page + 128 } : each)),
      };
    });
    const { codes } = await move(other.tamper);
    expectUnequal(codes);
  });

  test('need not notice a reference to another place on the disk: what counts is what it means', async () => {
    const other = once(({ records, ...batch }) => {
      if (!records.some(({ kind }) => kind === 2)) return null;
      return { ...batch, records: records.map((each) => (each.kind === 2 ? { ...each, diskOffsetBytes: 512 } : each)) };
    });
    const { codes, isEqual } = await move(other.tamper);
    expect(other.done()).toBe(true);
    expect(codes).toEqual(['moved', 'moved']);
    expect(isEqual).toBe(true);
  });
});

describe('a resent run', () => {
  test('with other bytes than were referred to is refused before it reaches QEMU', async () => {
    const { codes } = await move(
      (frame) => {
        if (frame.type !== frameType.resend) return frame.payload;
        const count = 64;
        return Buffer.concat([frame.payload.subarray(0, 2), Buffer.of(0), randomBytes(count * pageBytes)]);
      },
      (own) => ({
        path: own.path,
        lengthBytes: own.lengthBytes,
        direct: own.direct,
        counters: own.counters,
        read: async (...args) => (await own.read(...args)).fill(1),
        [Symbol.asyncDispose]: async () => {},
      }),
    );
    expect(codes[1]).toBe('VMMIG_LINK_PROTOCOL');
    expect(codes[0]).toMatch(/^VMMIG_(RELAY_QEMU|LINK_LOST)$/);
  });
});
