import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { heldDisk } from '../../pager/index.js';
import { RunDigester } from '../../relay/digest.js';
import { decodeBatch, recordKind } from '../../relay/link/batch.js';
import { frameType } from '../../relay/link/frames.js';
import { SentAhead } from '../../relay/source/sentAhead.js';
import { guestStream, LiarDestination, runningStream } from './liarDestination.js';
import { blocks, captured, LiarSource, memory, memoryOf } from './liarSource.js';
import { pageOf } from './wire.js';

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
  const ahead = new SentAhead(ram('ram', 64), new RunDigester(Buffer.alloc(32)), { awaitsCache: true });
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
  expect(references.map(({ page, count, disk }) => [page, count, disk])).toEqual([[16, 16, heldDisk]]);
  expect(liar.heard.filter(({ type }) => type === frameType.ahead)).toHaveLength(1);
});
