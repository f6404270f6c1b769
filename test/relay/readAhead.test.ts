/** What the destination reads from its disk before the stream has come to it. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { pageBytes, RelayRig } from './rig.js';

const pages = 1024;

/** Waits between two passes until the destination has read so many pages. */
async function untilRead(rig: RelayRig, wantedPages: number): Promise<void> {
  while (rig.destination.state.counters.bytes.restored < wantedPages * pageBytes) await sleep(2);
}

function contents(memory: Buffer): [number, Buffer][] {
  return Array.from({ length: memory.length / pageBytes }, (_, at) => [
    at,
    memory.subarray(at * pageBytes, (at + 1) * pageBytes),
  ]);
}

test('page cache is in place before it is referred to, and is read once', async () => {
  const disk = randomBytes(pages * pageBytes);
  await using rig = await RelayRig.start(pages, disk);
  rig.source.setCacheMap(RelayRig.map([[0, pages, 0]]));
  await rig.send([[], contents(disk), []], (pass) => (pass === 1 ? untilRead(rig, pages) : undefined));
  await rig.moved();
  expect(rig.memory.equals(disk)).toBe(true);
  expect(rig.destination.state.counters).toMatchObject({
    pages: { restored: pages, mismatched: 0 },
    bytes: { restored: pages * pageBytes },
  });
  // References without their bytes, and not much else.
  expect(rig.source.state.bytesOnWire).toBeLessThan(64 * 1024);
});

test('what was read ahead and is not what the guest has is replaced', async () => {
  const disk = randomBytes(pages * pageBytes);
  await using rig = await RelayRig.start(pages, disk);
  const guest = Buffer.from(disk);
  for (let page = 0; page < pages; page += 50)
    guest.fill(page % 3 === 0 ? 0 : page, page * pageBytes, page * pageBytes + 9);
  rig.source.setCacheMap(RelayRig.map([[0, pages, 0]]));
  await rig.send([[], contents(guest), []], (pass) => (pass === 1 ? untilRead(rig, pages) : undefined));
  await rig.moved();
  expect(rig.memory.equals(guest)).toBe(true);
  expect(rig.source.state.counters.pages.mismatched).toBeGreaterThan(0);
});

test('what was read ahead and was never told is zero, as it is where nothing was read ahead', async () => {
  const disk = randomBytes(pages * pageBytes);
  await using rig = await RelayRig.start(pages, disk);
  rig.source.setCacheMap(RelayRig.map([[0, pages, 0]]));
  const told = contents(disk).filter(([page]) => page % 100 !== 7);
  await rig.send([[], told, []], (pass) => (pass === 1 ? untilRead(rig, pages) : undefined));
  await rig.moved();
  const wanted = Buffer.from(disk);
  for (let page = 7; page < pages; page += 100) wanted.fill(0, page * pageBytes, (page + 1) * pageBytes);
  expect(rig.memory.equals(wanted)).toBe(true);
});

test('a page that the stream has told is not overwritten by what was being read meanwhile', async () => {
  const disk = randomBytes(pages * pageBytes);
  // A disk so slow that everything else has arrived before it answers.
  await using rig = await RelayRig.start(pages, disk, {
    reader: (reader) => ({
      path: reader.path,
      lengthBytes: reader.lengthBytes,
      direct: reader.direct,
      counters: reader.counters,
      read: async (...args) => {
        await sleep(100);
        return await reader.read(...args);
      },
      [Symbol.asyncDispose]: async () => {},
    }),
  });
  const guest = randomBytes(pages * pageBytes);
  rig.source.setCacheMap(RelayRig.map([[0, pages, 0]]));
  const sending = rig.send([[], contents(guest), []], async (pass) => {
    // A new map that knows of nothing: all pages go as bytes.
    if (pass === 1) rig.source.setCacheMap(RelayRig.map([]));
  });
  await sending;
  await rig.moved();
  expect(rig.memory.equals(guest)).toBe(true);
});
