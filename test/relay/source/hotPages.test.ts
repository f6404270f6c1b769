import { describe, expect, test } from 'vitest';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import { decodeBatch } from '../../../relay/link/batch.js';
import { BatchSender } from '../../../relay/source/switch/batchSender.js';
import { HotPages } from '../../../relay/source/switch/hotPages.js';
import { PageStore } from '../../../relay/store/pageStore.js';

const pageBytes = 4096;
const guestPages = 2048;
const blocks = [{ name: 'ram', lengthBytes: guestPages * pageBytes }];

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

const stretch = (page: number, count: number) => ({
  ...{ block: 'ram', offset: page * pageBytes, lengthBytes: count * pageBytes },
});
const ranges = (...pages: readonly number[]) => pages.map((page) => ({ block: 0, page, count: 1 }));

/** A source that has all of the guest's memory, and has sent none of it. */
function source(share = 1) {
  const store = new PageStore(blocks, { limitBytes: 64 * 2 ** 20, spillPath: null });
  for (const page of range(0, guestPages)) store.putPage(0, page, Buffer.alloc(pageBytes, page), 0);
  /** Of each batch, its pages. */
  const sent: number[][] = [];
  const link = {
    urgentBytes: 0,
    sendOrdered(_type: number, payload: Buffer) {
      const { records } = decodeBatch(payload, [guestPages]);
      return sent.push(records.flatMap(({ page, count }) => range(page, page + count))) - 1;
    },
    sendUrgent() {},
  };
  const digester = new RunDigester(Buffer.alloc(32));
  const tools = { link, digester, counters: newCounters(), compress: false, sent: () => {} };
  const batches = new BatchSender(store, blocks, tools);
  const hot = new HotPages(null, share);
  const write = (page: number) => store.putPage(0, page, Buffer.alloc(pageBytes, 1), 0);
  /** What went since the last call. */
  const taken = () => sent.splice(0);
  const next = (limitPages: number) => {
    batches.send(limitPages);
    return taken().flat();
  };
  return { store, batches, hot, write, taken, next };
}

describe('of a guest that has stopped', () => {
  test('what it wrote last goes with its devices, before what is only expected', () => {
    const { batches, hot, write, taken, next } = source();
    hot.expect({ now: [], soon: [stretch(600, 40)], later: [stretch(100, 40)] });
    hot.favour(batches);
    for (const page of [300, 20, 610, 299]) write(page);
    hot.send(batches, ranges(300, 20, 610, 299));
    expect(taken()).toEqual([[20, 299, 300, 610]]);
    expect(next(39)).toEqual([...range(600, 610), ...range(611, 640)]);
  });

  test('what is expected follows in its own order, and then what came last', () => {
    const { batches, hot, write, next, taken } = source();
    hot.expect({ now: [], soon: [stretch(900, 3), stretch(40, 2)], later: [stretch(700, 3), stretch(901, 4)] });
    hot.favour(batches);
    write(2000);
    write(50);
    hot.send(batches, []);
    expect(taken()).toEqual([]);
    const singles = Array.from({ length: 14 }, () => next(1));
    expect(singles.flat()).toEqual([900, 901, 902, 40, 41, 700, 701, 702, 903, 904, 50, 2000, 2047, 2046]);
  });

  test('what it wrote last goes first of all that it wrote, and no more than 256 pages of it', () => {
    const { store, batches, hot, write, taken, next } = source();
    hot.expect({ now: [], soon: [stretch(0, 64)], later: [] });
    hot.favour(batches);
    // Not by address, and neither by the order in which they came first.
    const order = range(0, 400).map((at) => 1000 + ((at * 7) % 400));
    for (const page of order) write(page);
    hot.send(batches, ranges(...order));
    const lastFirst = order.toReversed();
    const batchesOf32 = range(0, 8).map((batch) => lastFirst.slice(32 * batch, 32 * (batch + 1)));
    const byAddress = (left: number, right: number) => left - right;
    expect(taken()).toEqual(batchesOf32.map((batch) => batch.toSorted(byAddress)));
    expect(store.unsent.bytes).toBe(guestPages - 256);
    expect(next(100)).toEqual(lastFirst.slice(256, 356).toSorted(byAddress));
    expect(next(44)).toEqual(lastFirst.slice(356).toSorted(byAddress));
    expect(next(64)).toEqual(range(0, 64));
  });

  test('a page that it wrote to twice goes by the last time', () => {
    const { batches, hot, write, taken } = source();
    const order = [500, ...range(1000, 1032), 500];
    for (const page of order) write(page);
    hot.send(batches, ranges(...order));
    expect(taken()[0]).toEqual([500, ...range(1001, 1032)]);
  });

  test('what it looks at while it stands still goes with its devices too, and each page once', () => {
    const { batches, hot, write, taken } = source();
    hot.expect({ now: [stretch(70, 2), stretch(8, 3)], soon: [stretch(600, 4)], later: [] });
    hot.favour(batches);
    for (const page of [300, 9]) write(page);
    hot.send(batches, ranges(300, 9));
    expect(taken()).toEqual([
      [9, 300],
      [70, 71],
      [8, 10],
    ]);
  });

  test('half of what is written goes with its devices where half is treated in a special way', () => {
    const { batches, hot, write, taken } = source(0.5);
    for (const page of range(1000, 1400)) write(page);
    hot.send(batches, ranges(...range(1000, 1400)));
    expect(
      taken()
        .flat()
        .toSorted((left, right) => left - right),
    ).toEqual(range(1272, 1400));
  });

  test('nothing goes with its devices where nothing is treated in a special way, and what came last is next', () => {
    const { batches, hot, write, taken, next } = source(0);
    hot.expect({ now: [stretch(1, 1)], soon: [stretch(600, 4)], later: [] });
    hot.favour(batches);
    for (const page of [300, 20]) write(page);
    hot.send(batches, ranges(20, 300));
    expect(taken()).toEqual([]);
    expect([next(1), next(1), next(1)].flat()).toEqual([20, 300, 2047]);
  });
});
