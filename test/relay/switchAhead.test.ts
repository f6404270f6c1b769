import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { heldDisk } from '../../pager/index.js';
import { decodeBatch, recordKind } from '../../relay/link/batch.js';
import { frameType } from '../../relay/link/frames.js';
import { SentAhead } from '../../relay/source/sentAhead.js';
import { guestStream, LiarDestination, runningStream } from './liarDestination.js';
import { blocks, captured, LiarSource, memory, memoryOf } from './liarSource.js';
import { until } from './peers.js';
import { pageOf } from './wire.js';

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

const sourceOf = (guest: Buffer) => ({
  read: (o: number, n: number, into: Buffer, start = 0) => void guest.copy(into, start, o, o + n),
  async *dataRuns(offset: number, lengthBytes: number) {
    yield { offset, lengthBytes };
  },
  nextData: (o: number) => o,
});
const ram = (name: string, pages: number) => {
  const guest = randomBytes(pages * 4096);
  return {
    blocks: [{ name, lengthBytes: guest.length, place: { file: sourceOf(guest), fileOffset: 0 } }],
    limitBytes: 2 ** 20,
  };
};

test('a switch whose memory can be read late does not name it after the blocks', async () => {
  await using liar = await LiarDestination.start(runningStream());
  await liar.hears(frameType.blocks);
  await liar.relay.sendAhead(ram('ram', 64));
  await sleep(200);
  const types = liar.heard.map(({ type }) => type).filter((t) => t < 16);
  expect(types).not.toContain(frameType.memory);
});

test('a switch whose memory has other blocks is not ended by its destination', async () => {
  await using liar = await LiarSource.start();
  liar.say([memory, memoryOf(16)], [blocks, captured()]);
  await sleep(200);
  expect(liar.isLost).toBe(false);
});

test('a newer map does not open what the stream has closed', async () => {
  const ahead = new SentAhead(ram('ram', 64), { awaitsCache: true });
  await ahead.survey(new AbortController().signal);
  ahead.know(null);
  ahead.passed(0, 3);
  expect(ahead.isWaiting).toBe(true);
  ahead.know(null);
  expect(ahead.isWaiting).toBe(true);
});

test('what the guest will look at first goes before QEMU’s stream, and what is the same still goes once', async () => {
  const pages = Array.from({ length: 64 }, (_, page) => (page < 48 ? pageOf(page) : Buffer.alloc(4096)));
  const guest = Buffer.concat(pages);
  await using liar = await LiarDestination.start(Buffer.alloc(0));
  const stretch = (page: number, count: number) => ({ block: 'ram', offset: page * 4096, lengthBytes: count * 4096 });
  liar.relay.expectUse({ now: [stretch(33, 1)], soon: [stretch(16, 3)], later: [] });
  // The guest has written to it by the time that QEMU's stream has it.
  guest.fill(1, 40 * 4096, 41 * 4096);
  await liar.relay.sendAhead({
    blocks: [{ name: 'ram', lengthBytes: guest.length, place: { file: sourceOf(guest), fileOffset: 0 } }],
    limitBytes: 2 ** 20,
  });
  const ahead = await liar.hears(frameType.ahead);
  const runs = decodeBatch(ahead.payload, [64]).records.map(({ page, count }) => [page, count]);
  expect(runs).toEqual([
    [32, 16],
    [16, 16],
  ]);
  liar.qemu.write(guestStream(64, 48));
  await liar.go();
  const told = liar.heard
    .filter(({ type }) => type === frameType.batch)
    .flatMap(({ payload }) => decodeBatch(payload, [64]).records.map((record) => ({ ...record })));
  const references = told.filter(({ kind }) => kind === recordKind.reference);
  expect(references.map(({ page, count, disk }) => [page, count, disk])).toEqual([
    [16, 16, heldDisk],
    [32, 8, heldDisk],
    [41, 7, heldDisk],
  ]);
  const pagesOf = (of: number) =>
    told.flatMap(({ kind, page, count }) => (kind === of ? range(page, page + count) : []));
  expect(pagesOf(recordKind.bytes).toSorted((left, right) => left - right)).toEqual([...range(0, 16), 40]);
  expect(pagesOf(recordKind.fill)).toEqual(range(48, 64));
  expect(liar.heard.filter(({ type }) => type === frameType.ahead)).toHaveLength(1);
});

test('what QEMU sends again goes with the device state, and what is expected afterwards in its own order', async () => {
  const pages = 512;
  const again = [300, 20, 410, 299, 21];
  await using liar = await LiarDestination.start(Buffer.alloc(0));
  const stretch = (page: number, count: number) => ({ block: 'ram', offset: page * 4096, lengthBytes: count * 4096 });
  liar.relay.expectUse({ now: [], soon: [stretch(400, 40)], later: [stretch(100, 24), stretch(290, 20)] });
  // From here on nothing is sent before QEMU's stream has ended.
  liar.relay.guestStopped();
  liar.qemu.write(guestStream(pages, pages, again));
  await liar.go();
  liar.say([frameType.running]);
  const batches = () =>
    liar.heard
      .filter(({ type }) => type === frameType.batch)
      .map(({ payload }) =>
        decodeBatch(payload, [pages]).records.flatMap(({ page, count }) => range(page, page + count)),
      );
  await until(() => batches().flat().length >= pages);
  const order = liar.heard.map(({ type }) => type).filter((type) => type === frameType.batch || type === frameType.go);
  expect(order.slice(0, 3)).toEqual([frameType.batch, frameType.go, frameType.batch]);
  const soon = [...range(400, 410), ...range(411, 440)];
  const later = [...range(100, 124), ...range(290, 299), ...range(301, 310)];
  // Within a batch they go by address.
  expect(batches().slice(0, 4)).toEqual([
    [20, 21, 299, 300, 410],
    soon.slice(0, 32),
    [...later.slice(0, 25), ...soon.slice(32)],
    [...later.slice(25), ...range(497, 512)],
  ]);
  expect(
    batches()
      .flat()
      .toSorted((left, right) => left - right),
  ).toEqual(range(0, pages));
});
