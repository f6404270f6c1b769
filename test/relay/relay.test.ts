import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { pageBytes, RelayRig } from './rig.js';

const pages = 2048;

function pagesOf(bytes: Buffer, first: number, count: number): [number, Buffer][] {
  return Array.from({ length: count }, (_, at) => [
    first + at,
    bytes.subarray((first + at) * pageBytes, (first + at + 1) * pageBytes),
  ]);
}

describe('two relays', () => {
  test('put back from the disk what the cache map covers, and send the rest', async () => {
    const disk = randomBytes(pages * pageBytes);
    await using rig = await RelayRig.start(pages, disk);
    const guest = Buffer.concat([
      disk.subarray(0, 1024 * pageBytes),
      randomBytes(512 * pageBytes),
      Buffer.alloc(512 * pageBytes),
    ]);
    rig.source.setCacheMap(RelayRig.map([[0, 1024, 0]]));
    const zeros: [number, number][] = Array.from({ length: 512 }, (_, at) => [1536 + at, 0]);
    await rig.send([[...pagesOf(guest, 0, 1536), ...zeros], []]);
    await rig.moved();
    expect(rig.memory.equals(guest)).toBe(true);
    expect(rig.tail.subarray(-12).toString()).toBe('device state');
    expect(rig.sectionsAfterTail).toBe(0);
    expect(rig.source.state.counters.pages).toMatchObject({ zero: 512, teleported: 1024, sent: 512, mismatched: 0 });
    expect(rig.destination.state.counters.pages.restored).toBe(1024);
    expect(rig.source.state.bytesOnWire).toBeLessThan(513 * pageBytes * 1.1);
  });

  test('send the bytes of runs that the disk does not hold, or that lie beyond it', async () => {
    const disk = randomBytes(256 * pageBytes);
    await using rig = await RelayRig.start(pages, disk);
    const guest = Buffer.concat([disk, randomBytes((pages - 256) * pageBytes)]);
    rig.source.setCacheMap(
      RelayRig.map([
        [0, 128, 0],
        [128, 128, 64],
        [256, 256, 200],
        [512, 64, 2 ** 30],
      ]),
    );
    await rig.send([pagesOf(guest, 0, pages), []]);
    await rig.moved();
    expect(rig.memory.equals(guest)).toBe(true);
    expect(rig.source.state.counters.pages.mismatched).toBe(128 + 256 + 64);
    expect(rig.destination.state.counters.pages.restored).toBe(128);
  });

  test('never let a restore from the disk overtake a newer version of its page', async () => {
    const disk = randomBytes(pages * pageBytes);
    await using rig = await RelayRig.start(pages, disk, { compress: false });
    const guest = Buffer.from(disk);
    const passes: [number, Buffer | number][][] = [pagesOf(disk, 0, pages)];
    for (let pass = 1; pass < 6; pass++) {
      const changes: [number, Buffer | number][] = [];
      for (let page = pass % 3; page < pages; page += 1 + ((pass * 7) % 5)) {
        const content = pass === 4 ? 0 : randomBytes(pageBytes);
        guest.set(typeof content === 'number' ? Buffer.alloc(pageBytes, content) : content, page * pageBytes);
        changes.push([page, content]);
      }
      passes.push(changes);
    }
    passes.push([]);
    rig.source.setCacheMap(RelayRig.map([[0, pages, 0]]));
    await rig.send(passes);
    await rig.moved();
    expect(rig.memory.equals(guest)).toBe(true);
  });

  test('teleport a page that was read again after a new map, and only then', async () => {
    const disk = randomBytes(pages * pageBytes);
    await using rig = await RelayRig.start(pages, disk);
    rig.source.setCacheMap(RelayRig.map([[0, 64, 0]]));
    await rig.send([pagesOf(disk, 0, 64), pagesOf(disk, 0, 64), pagesOf(disk, 0, 64), []], (pass) => {
      if (pass === 2) rig.source.setCacheMap(RelayRig.map([[0, 64, 0]]));
    });
    await rig.moved();
    expect(rig.memory.subarray(0, 64 * pageBytes).equals(disk.subarray(0, 64 * pageBytes))).toBe(true);
    expect(rig.source.state.counters.pages.teleported).toBeGreaterThanOrEqual(128);
    expect(rig.source.state.counters.pages.mismatched).toBe(0);
  });

  test('tell each other what becomes of a guest that has moved, and part', async () => {
    await using rig = await RelayRig.start(pages, Buffer.alloc(0));
    await rig.send([[[0, 7]], []]);
    await rig.moved();
    expect(rig.source.state.isConnected).toBe(true);
    rig.destination.tellRunning();
    await expect.poll(() => rig.heard).toEqual(['running']);
    rig.source.tellReleased();
    await Promise.all([rig.source.parted, rig.destination.parted]);
    expect(rig.heard).toEqual(['running', 'released']);
  });

  test('tell of a guest that does not run on the other host, and part', async () => {
    await using rig = await RelayRig.start(pages, Buffer.alloc(0));
    await rig.send([[[0, 7]], []]);
    await rig.moved();
    rig.destination.tellRefused('it was given up');
    await Promise.all([rig.source.parted, rig.destination.parted]);
    expect(rig.heard).toEqual(['refused']);
  });

  test.each(['source', 'destination'] as const)('part when the %s ends without a word', async (which) => {
    await using rig = await RelayRig.start(pages, Buffer.alloc(0));
    await rig.send([[[0, 7]], []]);
    await rig.moved();
    await rig[which][Symbol.asyncDispose]();
    await Promise.all([rig.source.parted, rig.destination.parted]);
    expect(rig.heard).toEqual([]);
  });

  test('end with an error on both sides when one of them is aborted, and hand QEMU no end of file', async () => {
    await using rig = await RelayRig.start(pages, randomBytes(pageBytes));
    const sending = rig.send([pagesOf(randomBytes(pages * pageBytes), 0, pages), []]).catch(() => {});
    rig.source.abort();
    await expect(rig.source.finished).rejects.toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
    await expect(rig.destination.finished).rejects.toMatchObject({ code: 'VMMIG_LINK_LOST' });
    await sending;
  });
});
