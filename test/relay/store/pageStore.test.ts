import { describe, expect, test } from 'vitest';
import { BatchBuilder, recordKind } from '../../../relay/link/batch.js';
import { StoreError } from '../../../relay/store/errors.js';
import { PageStore } from '../../../relay/store/pageStore.js';
import { Destination, expectEmpty, Guest, pageBytes } from './guest.js';

const pagesOfBlock = [10_000, 100];
const blocks = pagesOfBlock.map((pages, index) => ({ name: `block ${index}`, lengthBytes: pages * pageBytes }));

function rig() {
  const store = new PageStore(blocks, { limitBytes: 64 * 1024 * 1024, spillPath: null });
  const guest = new Guest(store, true);
  return { store, guest, destination: new Destination(guest, pagesOfBlock), builder: new BatchBuilder() };
}

/** Sends a batch. @returns its pages in order */
function pagesSent({ store, destination, builder }: ReturnType<typeof rig>, limitPages: number): number[] {
  const sent = store.fillBatch(builder, limitPages);
  if (sent === null) return [];
  const pages = builder
    .contents()
    .records.flatMap(({ page, count }) => Array.from({ length: count }, (_, at) => page + at));
  destination.receive(sent, builder);
  return pages;
}

describe('what is sent', () => {
  test('is fills and references before bytes, in batches of their own', () => {
    const all = rig();
    all.guest.write(0, 0, 3);
    all.guest.read(0, 100, 64);
    all.guest.fill(0, 500, 1000, 0);
    expect(all.store.unsent).toEqual({ fill: 1000, bytes: 3, reference: 64 });
    expect(pagesSent(all, 2000)).toHaveLength(1064);
    expect(all.store.unsent).toEqual({ fill: 0, bytes: 3, reference: 0 });
    expect(all.store.remaining).toEqual({ fill: 1000, bytes: 3, reference: 64 });
    expect(pagesSent(all, 2000)).toEqual([0, 1, 2]);
    expect(pagesSent(all, 2000)).toEqual([]);
  });

  test('is no more than the limit, except that a reference is whole, and that 32 fills count as a page', () => {
    const all = rig();
    all.guest.fill(0, 0, 98, 0);
    all.guest.read(0, 100, 64);
    expect(pagesSent(all, 3)).toHaveLength(96);
    expect(pagesSent(all, 3)).toEqual([96, 97]);
    expect(pagesSent(all, 3)).toHaveLength(64);
    all.guest.write(0, 200, 10);
    expect(pagesSent(all, 4)).toEqual([200, 201, 202, 203]);
  });

  test('is what was captured first, or last, and by address within a batch', () => {
    const all = rig();
    for (const page of [50, 40, 30, 20, 10, 0]) all.guest.write(0, page, 1);
    expect(pagesSent(all, 2)).toEqual([40, 50]);
    all.store.prefer('recent');
    expect(pagesSent(all, 2)).toEqual([0, 10]);
    all.guest.write(0, 30, 1);
    expect(pagesSent(all, 1)).toEqual([30]);
  });

  test('is first of all what was moved to the front, the last move before earlier ones', () => {
    const all = rig();
    all.guest.write(0, 0, 1000);
    all.store.moveToFront(0, 500, 2);
    all.store.moveToFront(0, 900, 2);
    expect(pagesSent(all, 2)).toEqual([900, 901]);
    expect(pagesSent(all, 3)).toEqual([0, 500, 501]);
  });

  test('is what was moved to the front in the order of the moves, also when what was captured last goes first', () => {
    const all = rig();
    all.store.favour([{ block: 0, page: 500, count: 100 }]);
    all.guest.write(0, 0, 1000);
    // What is wanted first is moved last.
    for (const [page, count] of [[510, 2] as const, [40, 2] as const, [580, 2] as const])
      all.store.moveToFront(0, page, count);
    all.store.prefer('recent');
    expect(pagesSent(all, 1)).toEqual([580]);
    expect(pagesSent(all, 2)).toEqual([40, 581]);
    expect(pagesSent(all, 3)).toEqual([41, 510, 511]);
    expect(pagesSent(all, 2)).toEqual([500, 501]);
    // What is written again goes as it would have without the move.
    all.guest.write(0, 580, 1);
    all.guest.write(0, 40, 1);
    expect(pagesSent(all, 95)).toHaveLength(95);
    expect(all.store.takeNow(0, 500, 100, all.builder).sent).toBeNull();
    expect(pagesSent(all, 3)).toEqual([40, 998, 999]);
  });

  test('are those that are favoured, whenever they are captured', () => {
    const all = rig();
    all.guest.write(0, 0, 100);
    all.store.favour([{ block: 0, page: 98, count: 4 }]);
    all.guest.write(0, 100, 100);
    all.store.moveToFront(0, 150, 1);
    expect(pagesSent(all, 1)).toEqual([150]);
    expect(pagesSent(all, 4)).toEqual([98, 99, 100, 101]);
    all.guest.write(0, 99, 1);
    expect(pagesSent(all, 2)).toEqual([0, 99]);
  });

  test('takes no harm from a range to move that the guest does not have', () => {
    const all = rig();
    all.guest.write(0, 9999, 1);
    all.guest.write(1, 0, 1);
    all.store.moveToFront(7, 0, 10);
    all.store.moveToFront(0, 2 ** 40, 10);
    all.store.moveToFront(0, 9990, 2 ** 40);
    expect(pagesSent(all, 1)).toEqual([9999]);
    expect(all.store.takeNow(9, 0, 10, all.builder)).toEqual({ sent: null, inFlightPages: 0 });
    expect(all.store.takeNow(0, 20_000, 10, all.builder)).toEqual({ sent: null, inFlightPages: 0 });
  });
});

describe('a fault', () => {
  test('takes what is unsent at once, and learns how much is under way', () => {
    const all = rig();
    all.guest.write(0, 0, 10);
    all.guest.fill(0, 10, 5, 0);
    pagesSent(all, 5);
    expect(pagesSent(all, 4)).toEqual([0, 1, 2, 3]);
    const { sent, inFlightPages } = all.store.takeNow(0, 0, 15, all.builder);
    expect(sent).toMatchObject({ fillPages: 0, bytesPages: 6, referencePages: 0 });
    expect(inFlightPages).toBe(9);
    all.destination.receive(sent!, all.builder);
    expect(all.store.takeNow(0, 0, 15, all.builder)).toEqual({ sent: null, inFlightPages: 15 });
    all.destination.drain(all.builder);
    expect(all.store.takeNow(0, 0, 15, all.builder)).toEqual({ sent: null, inFlightPages: 0 });
    expectEmpty(all.store);
  });

  test('on one page of a reference takes the run', () => {
    const all = rig();
    all.guest.read(0, 100, 64);
    const { sent, inFlightPages } = all.store.takeNow(0, 130, 2, all.builder);
    expect(sent).toMatchObject({ referencePages: 64 });
    expect(inFlightPages).toBe(0);
    all.destination.receive(sent!, all.builder);
    all.destination.drain(all.builder, false);
    expectEmpty(all.store);
  });
});

describe('a newer version', () => {
  test('replaces the older before that is sent', () => {
    const all = rig();
    for (let round = 0; round < 10; round++) all.guest.write(0, 0, 100);
    all.guest.fill(0, 50, 10, 0);
    all.guest.read(0, 60, 10);
    expect(all.store.unsent).toEqual({ fill: 10, bytes: 80, reference: 10 });
    all.destination.drain(all.builder);
    all.destination.expectLatest();
    expectEmpty(all.store);
  });

  test('breaks up a reference that is not sent yet, of which the rest goes as bytes', () => {
    const all = rig();
    all.guest.read(0, 0, 64);
    all.guest.write(0, 20, 1);
    all.guest.fill(0, 21, 1, 0);
    expect(all.store.unsent).toEqual({ fill: 1, bytes: 63, reference: 0 });
    all.destination.drain(all.builder);
    all.destination.expectLatest();
    expectEmpty(all.store);
  });

  test('leaves a reference under way whole, for the destination may ask for it', () => {
    const all = rig();
    all.guest.read(0, 0, 64);
    pagesSent(all, 64);
    all.guest.write(0, 20, 30);
    all.guest.read(0, 10, 40);
    all.destination.drain(all.builder, false);
    all.destination.expectLatest();
    expectEmpty(all.store);
  });

  test('is not forgotten when an older one is acknowledged', () => {
    const all = rig();
    all.guest.write(0, 0, 1);
    pagesSent(all, 1);
    all.guest.write(0, 0, 1);
    pagesSent(all, 1);
    all.destination.acknowledge(0, true);
    expect(all.store.remaining.bytes).toBe(1);
    all.destination.restart();
    expectEmpty(all.store);
  });

  test('of a zero page that is zero again is none', () => {
    const all = rig();
    all.guest.fill(0, 0, 100, 0);
    all.guest.fill(0, 0, 100, 0);
    pagesSent(all, 1);
    all.guest.fill(0, 0, 100, 0);
    expect(all.store.unsent.fill).toBe(68);
    all.destination.drain(all.builder);
    all.guest.fill(0, 0, 100, 0);
    expectEmpty(all.store);
    all.guest.fill(0, 0, 1, 1);
    expect(pagesSent(all, 10)).toEqual([0]);
  });
});

describe('starting again with another relay', () => {
  test('tells zero pages again, and references as references', () => {
    const all = rig();
    all.guest.fill(0, 0, 100, 0);
    all.guest.read(0, 200, 64);
    all.guest.write(0, 300, 10);
    pagesSent(all, 4);
    all.destination.acknowledge(0, true);
    expect(all.store.remaining.fill).toBe(0);
    pagesSent(all, 64);
    all.destination.restart();
    expect(all.store.unsent).toEqual({ fill: 100, bytes: 10, reference: 64 });
    all.destination.drain(all.builder);
    all.destination.expectLatest();
    expectEmpty(all.store);
  });

  test('refuses when a page that was in place is not, and changes nothing', () => {
    const all = rig();
    all.guest.write(0, 0, 2);
    pagesSent(all, 1);
    all.destination.acknowledge(0, true);
    pagesSent(all, 1);
    expect(() => all.store.resync(() => false)).toThrow(expect.objectContaining({ code: 'VMMIG_STORE_LOST' }));
    expect(all.store.remaining.bytes).toBe(1);
    all.destination.acknowledge(0, true);
    expectEmpty(all.store);
  });
});

test('pages that the guest does not have are refused', () => {
  const { store } = rig();
  const page = Buffer.alloc(pageBytes);
  expect(() => store.putPage(0, 10_000, page, 0)).toThrow(StoreError);
  expect(() => store.putPage(2, 0, page, 0)).toThrow(StoreError);
  expect(() => store.putFill(0, 9_999, 2, 0)).toThrow(expect.objectContaining({ code: 'VMMIG_STORE_RANGE' }));
  expect(() => store.putReference(1, 99, 2, 0, 0, page, Buffer.alloc(2 * pageBytes))).toThrow(StoreError);
  expect(store.isEmpty).toBe(true);
});

test('the digest of a reference is the one that was given, whatever becomes of the buffer', () => {
  const { store, builder } = rig();
  const digest = Buffer.alloc(16, 5);
  store.putReference(0, 7, 1, 3, 8192, digest, Buffer.alloc(pageBytes));
  digest.fill(0);
  store.fillBatch(builder, 10);
  expect(builder.contents().records).toEqual([
    {
      kind: recordKind.reference,
      fill: 0,
      block: 0,
      page: 7,
      count: 1,
      disk: 3,
      diskOffsetBytes: 8192,
      digest: Buffer.alloc(16, 5),
    },
  ]);
});
