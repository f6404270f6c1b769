/** What the source relay reads of a guest's memory and sends ahead of QEMU's stream. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { heldDisk, isZero, type MemorySource, PagerError } from '../../pager/index.js';
import { type Frame, frameType } from '../../relay/link/frames.js';
import type { GuestBlock } from '../../relay/source/guestBlock.js';
import type { ReadableMemory } from '../../relay/source/sentAhead.js';
import { Network } from './link/network.js';
import { until } from './peers.js';
import { tamperingProxy } from './proxy.js';
import { pageBytes, RelayRig, type RigOptions } from './rig.js';
import { decodeWireBatch } from './wire.js';

const pages = 256;
const groupPages = 16;
const groups = pages / groupPages;
const unlimited = 2 ** 30;

type Pass = [page: number, content: Buffer | number][];

/** What crosses the link, as a proxy that has the key sees it. */
class Crossed {
  readonly frames: number[] = [];
  /** Pages, in their order. */
  readonly ahead: number[] = [];
  readonly asBytes: number[] = [];
  readonly asFills: number[] = [];
  /** First pages and lengths of the references to what is held. */
  readonly asHeld: [page: number, count: number][] = [];
  readonly fromDisk: number[] = [];

  note({ type, payload }: Frame): Buffer {
    this.frames.push(type);
    if (type !== frameType.ahead && type !== frameType.batch) return payload;
    for (const { kind, page, count, disk } of decodeWireBatch(payload).records) {
      const all = range(page, page + count);
      if (type === frameType.ahead) this.ahead.push(...all);
      else if (kind === 2 && disk === heldDisk) this.asHeld.push([page, count]);
      else (kind === 0 ? this.asFills : kind === 1 ? this.asBytes : this.fromDisk).push(...all);
    }
    return payload;
  }

  count(type: number): number {
    return this.frames.filter((each) => each === type).length;
  }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

/** These pages as QEMU sends them. */
function contents(guest: Buffer, of: readonly number[] = range(0, guest.length / pageBytes)): Pass {
  return of.map((page) => {
    const bytes = Buffer.from(guest.subarray(page * pageBytes, (page + 1) * pageBytes));
    return [page, isZero(bytes, 0) ? 0 : bytes];
  });
}

function write(guest: Buffer, page: number, content: Buffer | number = randomBytes(pageBytes)): void {
  guest.fill(content, page * pageBytes, (page + 1) * pageBytes);
}

function sourceOf(guest: Buffer): MemorySource {
  return {
    read: (offset, lengthBytes, into, start = 0) => void guest.copy(into, start, offset, offset + lengthBytes),
    async *dataRuns(offset, lengthBytes) {
      yield { offset, lengthBytes };
    },
    nextData: (offset) => offset,
  };
}

function memoryOf(guest: Buffer, block: Partial<GuestBlock> = {}, limitBytes = unlimited): ReadableMemory {
  const place = { file: sourceOf(guest), fileOffset: 0 };
  return { blocks: [{ name: 'pc.ram', lengthBytes: guest.length, place, ...block }], limitBytes };
}

async function start(guest: Buffer, options: RigOptions & { readonly disk?: Buffer } = {}) {
  const { disk = Buffer.alloc(pageBytes), ...given } = options;
  const crossed = new Crossed();
  const rig = await RelayRig.start(guest.length / pageBytes, disk, {
    compress: false,
    heldLimitBytes: unlimited,
    via: tamperingProxy((frame) => crossed.note(frame)),
    ...given,
  });
  /** Resolves when so many pages have been sent. */
  const sendAhead = async (expectedPages: number, memory = memoryOf(guest)) => {
    await rig.source.sendAhead(memory);
    await until(() => crossed.ahead.length >= expectedPages);
  };
  const arrives = async () => {
    await rig.moved();
    expect(rig.memory.equals(guest)).toBe(true);
    expect(rig.tail.toString()).toContain('device state');
  };
  return { rig, crossed, sendAhead, arrives, [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose]() };
}

/** Whole groups: all but these. */
function allHeldBut(...changed: readonly number[]): [number, number][] {
  return range(0, groups)
    .filter((group) => !changed.includes(group))
    .map((group) => [group * groupPages, groupPages]);
}

describe('what was sent ahead', () => {
  test('crosses the link once', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    const wireBytes = rig.source.state.bytesOnWire;
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.ahead.toSorted((left, right) => left - right)).toEqual(range(0, pages));
    expect(crossed.asHeld).toEqual(allHeldBut());
    expect(crossed.asBytes).toEqual([]);
    expect(wireBytes).toBeGreaterThan(pages * pageBytes);
    expect(rig.source.state.bytesOnWire - wireBytes).toBeLessThan(8 * pageBytes);
    expect(rig.source.state.counters.pages).toMatchObject({ seen: pages, sent: pages, teleported: 0, mismatched: 0 });
  });

  test('crosses the link once also when QEMU has said before which memory there is', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await rig.send([[], contents(guest), []], async (pass) => {
      if (pass === 1) await until(() => crossed.frames.includes(frameType.blocks));
      if (pass === 1) await sendAhead(pages);
    });
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut());
  });

  test('is held where no QEMU listens yet', async () => {
    const guest = randomBytes(pages * pageBytes);
    const { promise: qemuStarts, resolve: startQemu } = withResolvers();
    await using one = await start(guest, { qemuStarts });
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    await until(() => rig.source.state.backlogBytes === 0);
    const sending = rig.send([contents(guest), []]);
    await until(() => crossed.asHeld.length === groups);
    startQemu();
    await sending;
    await arrives();
    expect(crossed.count(frameType.resend)).toBe(0);
  });

  test('is let go of when the migration ends before there is a QEMU', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest, { qemuStarts: new Promise(() => {}) });
    const { rig, sendAhead } = one;
    await sendAhead(pages);
    rig.source.abort();
    await expect(rig.source.finished).rejects.toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
    await expect(rig.destination.finished).rejects.toMatchObject({ code: 'VMMIG_LINK_LOST' });
  });

  test('is the end of the memory where not all of it may be held', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(64, memoryOf(guest, {}, 70 * pageBytes));
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.ahead.toSorted((left, right) => left - right)).toEqual(range(pages - 64, pages));
    expect(crossed.asHeld).toEqual(allHeldBut(...range(0, groups - 4)));
    expect(crossed.asBytes).toEqual(range(0, pages - 64));
  });

  test('is all of it where the link takes less at a time', async () => {
    const guest = randomBytes(2048 * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(2048);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asBytes).toEqual([]);
  });

  test('is no more of it once QEMU sends pages', async () => {
    const guest = randomBytes(3072 * pageBytes);
    await using one = await start(guest, { bandwidthBps: 100e6 });
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(1);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.ahead.length).toBeLessThan(3072);
    expect(crossed.asHeld.length * groupPages).toBe(crossed.ahead.length);
    expect(rig.source.state.bytesOnWire).toBeLessThan(guest.length * 1.1);
  });

  test.each([
    ['all', 0],
    ['most', 40 * pageBytes],
  ])('is asked for again where the destination has not kept %s of it', async (_, heldLimitBytes) => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest, { heldLimitBytes });
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut());
    expect(crossed.count(frameType.resend)).toBe(groups - Math.floor(heldLimitBytes / (groupPages * pageBytes)));
  });

  test('is not lost when the network is cut', async () => {
    const guest = randomBytes(1024 * pageBytes);
    let network!: Network;
    const via = async (port: number) => {
      network = await Network.to(port);
      return network;
    };
    await using one = await start(guest, { via, bandwidthBps: 60e6, reconnectTimeoutMs: 30_000 });
    const { rig, arrives } = one;
    let left = 1024 / groupPages;
    const source = sourceOf(guest);
    const read: MemorySource['read'] = (...args) => {
      left--;
      source.read(...args);
    };
    await rig.source.sendAhead(memoryOf(guest, { place: { file: { ...source, read }, fileOffset: 0 } }));
    await until(() => rig.source.state.bytesOnWire > guest.length / 4);
    network.cut();
    await until(() => rig.source.state.reconnects > 0 && left === 0 && rig.source.state.backlogBytes === 0);
    const wireBytes = rig.source.state.bytesOnWire;
    await rig.send([contents(guest), []]);
    await arrives();
    expect(rig.source.state.bytesOnWire - wireBytes).toBeLessThan(16 * pageBytes);
  });
});

/** The same with these, in the order of the stream. */
function allHeldBesides(group: number, ...stretches: readonly [page: number, count: number][]): [number, number][] {
  return [...allHeldBut(group), ...stretches].toSorted(([left], [right]) => left - right);
}

/** So that a CRC-32 does not tell: by bits of its polynomial, which it takes from the lowest of each byte on. */
function changeUnseen(guest: Buffer, page: number): void {
  const polynomial = '100000100110000010001110110110111';
  for (const [at, bit] of [...polynomial].entries())
    if (bit === '1') guest[page * pageBytes + 100 + (at >>> 3)]! ^= 1 << (at & 7);
}

describe('what the guest has written to since', () => {
  test.each<[string, number, Buffer | number, [number, number][]]>([
    ['a first page of those that were sent together', 32, randomBytes(pageBytes), [[33, 15]]],
    [
      'a page among them',
      39,
      randomBytes(pageBytes),
      [
        [32, 7],
        [40, 8],
      ],
    ],
    ['a last page of them', 47, randomBytes(pageBytes), [[32, 15]]],
    ['a first page that has become zero', 32, 0, [[33, 15]]],
    [
      'a page among them that has become zero',
      39,
      0,
      [
        [32, 7],
        [40, 8],
      ],
    ],
    ['a last page that has become zero', 47, 0, [[32, 15]]],
  ])('is sent as it is now, and nothing else: %s', async (_, page, content, around) => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    write(guest, page, content);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBesides(2, ...around));
    expect([...crossed.asBytes, ...crossed.asFills]).toEqual([page]);
    expect(crossed.count(frameType.resend)).toBe(0);
  });

  test('is all that is sent, where it is every other page', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    const [odd, even] = [1, 0].map((rest) => range(0, pages).filter((page) => page % 2 === rest));
    for (const page of odd!) write(guest, page);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(even!.map((page) => [page, 1]));
    expect(crossed.asBytes).toEqual(odd);
    expect(crossed.count(frameType.resend)).toBe(0);
  });

  test('is asked for where the source takes it for the same', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    const before = Buffer.from(guest);
    changeUnseen(guest, 39);
    expect(crc32(guest)).toBe(crc32(before));
    expect(guest.equals(before)).toBe(false);
    write(guest, 33);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBesides(2, [32, 1], [34, 14]));
    expect(crossed.asBytes).toEqual([33]);
    expect(crossed.count(frameType.resend)).toBe(1);
    expect(rig.source.state.counters.pages.mismatched).toBe(0);
  });

  test('is sent in each pass as it is then', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    const passes: Pass[] = [contents(guest)];
    for (const [page, content] of [
      [40, undefined] as const,
      [41, 0] as const,
      [40, 0] as const,
      [40, undefined] as const,
    ]) {
      write(guest, page, content);
      passes.push(contents(guest, [40, 41, 200]));
    }
    await rig.send([...passes, []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut());
    expect(crossed.asBytes).toEqual([40, 41, 200, 40, 200, 200, 40, 200]);
    expect(crossed.asFills).toEqual([41, 40, 41, 41]);
  });

  test('is not what has the same contents as before, also in another pass', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    await rig.send([contents(guest, range(0, 128)), contents(guest, range(128, 256)), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut());
  });
});

describe('pages that were sent together', () => {
  test('are told together with the zero pages among them, and without those around them', async () => {
    const guest = randomBytes(pages * pageBytes);
    for (const page of [37, 38, 48, 63, 70]) write(guest, page, 0);
    write(guest, 70, 0xff);
    for (const page of range(80, 96)) write(guest, page, 0);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages - 2 - 16);
    // QEMU has a record for pages of any one byte.
    const all = contents(guest).map(([page, content]): Pass[0] => (page === 70 ? [page, 0xff] : [page, content]));
    await rig.send([all, []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut(5).map(([page, count]) => (page === 48 ? [49, 14] : [page, count])));
    expect(crossed.asFills).toEqual([48, 63, ...range(80, 96)]);
    expect(crossed.asBytes).toEqual([]);
  });

  test('are told in two parts when a section ends among them', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    await rig.send([contents(guest, range(0, 104)), contents(guest, range(104, pages)), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBesides(6, [96, 8], [104, 8]));
    expect([...crossed.asBytes, ...crossed.asFills]).toEqual([]);
    expect(crossed.count(frameType.resend)).toBe(0);
  });

  test('are told in two parts also when one of the second part has changed', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    const first = contents(guest, range(0, 104));
    for (const page of [100, 106]) write(guest, page);
    await rig.send([first, contents(guest, range(104, pages)), contents(guest, [100]), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBesides(6, [96, 8], [104, 2], [107, 5]));
    expect(crossed.asBytes).toEqual([106, 100]);
    expect(crossed.count(frameType.resend)).toBe(0);
  });

  test('are told around one of them that does not come', async () => {
    const guest = randomBytes(pages * pageBytes);
    write(guest, 20, 0);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    rig.memory.fill(0);
    await rig.send([
      contents(
        guest,
        range(0, pages).filter((page) => page !== 20),
      ),
      [],
    ]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBesides(1, [16, 4], [21, 11]));
    expect([...crossed.asBytes, ...crossed.asFills]).toEqual([]);
    expect(crossed.count(frameType.resend)).toBe(0);
  });
});

describe('page cache', () => {
  test('is not sent ahead, and comes from the disk', async () => {
    const disk = randomBytes(pages * pageBytes);
    const guest = Buffer.concat([disk.subarray(0, 100 * pageBytes), randomBytes((pages - 100) * pageBytes)]);
    await using one = await start(guest, { disk });
    const { rig, crossed, sendAhead, arrives } = one;
    rig.source.setCacheMap(RelayRig.map([[0, 100, 0]]));
    await sendAhead(pages - 100);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.ahead.toSorted((left, right) => left - right)).toEqual(range(100, pages));
    expect(crossed.fromDisk).toEqual(range(0, 100));
    expect(crossed.asHeld).toEqual([[100, 12], ...allHeldBut(...range(0, 7))]);
    expect(rig.source.state.counters.pages).toMatchObject({ teleported: 100, sent: pages - 100, mismatched: 0 });
    expect(rig.destination.state.counters.pages.restored).toBe(100);
  });

  test('is sent ahead as all else is where it is not to come from the disk', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest, { disk: guest, elide: false });
    const { rig, crossed, sendAhead, arrives } = one;
    rig.source.setCacheMap(RelayRig.map([[0, 100, 0]]));
    await sendAhead(pages);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual(allHeldBut());
  });

  test('that became known after it had been sent comes from the disk, and the rest is what it is', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest, { disk: guest });
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(pages);
    rig.source.setCacheMap(RelayRig.map([[0, 100, 0]]));
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.fromDisk).toEqual(range(0, 100));
    expect([...crossed.asBytes, ...crossed.asFills]).toEqual([]);
    expect(crossed.asHeld).toEqual([[100, 12], ...allHeldBut(...range(0, 7))]);
    expect(crossed.count(frameType.resend)).toBe(0);
  });
});

describe('memory that is not what QEMU sends', () => {
  const others: [string, (guest: Buffer) => Pick<ReadableMemory, 'blocks'>][] = [
    ['by its name', (guest) => memoryOf(guest, { name: 'ram' })],
    ['by its length', (guest) => memoryOf(guest, { lengthBytes: guest.length - 32 * pageBytes })],
    [
      'by a block more',
      (guest) => ({ blocks: [...memoryOf(guest).blocks, ...memoryOf(guest, { name: 'rom' }).blocks] }),
    ],
    [
      'by a block before',
      (guest) => ({ blocks: [{ name: 'rom', lengthBytes: 4096, place: null }, ...memoryOf(guest).blocks] }),
    ],
    ['by a block less', () => ({ blocks: [] })],
  ];

  test.each(others)('is never referred to: %s', async (_, memory) => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    const { blocks } = memory(guest);
    const expected = blocks.reduce(
      (sum, { lengthBytes, place }) => sum + (place === null ? 0 : lengthBytes / pageBytes),
      0,
    );
    await sendAhead(expected, { blocks, limitBytes: unlimited });
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asHeld).toEqual([]);
    expect(crossed.asBytes).toEqual(range(0, pages));
  });

  test.each(others)('is not sent when QEMU has said before which there is: %s', async (_, memory) => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, arrives } = one;
    await rig.send([[], contents(guest), []], async (pass) => {
      if (pass === 1) await until(() => crossed.frames.includes(frameType.blocks));
      if (pass === 1) await rig.source.sendAhead({ ...memory(guest), limitBytes: unlimited });
    });
    await arrives();
    expect(crossed.count(frameType.memory)).toBe(0);
    expect(crossed.ahead).toEqual([]);
  });

  test('is not sent where none is worth it, and nothing is looked for', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    await sendAhead(0, memoryOf(guest, { place: null }));
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.ahead).toEqual([]);
    expect(crossed.asBytes).toEqual(range(0, pages));
  });
});

describe('memory that cannot be read', () => {
  const unreadable = () => new PagerError('VMMIG_MEMORY_FILE_READ', 'it is not there');

  test('is told to who wanted it sent, and QEMU sends all of it', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    const source: MemorySource = {
      ...sourceOf(guest),
      // biome-ignore lint/correctness/useYield: it fails before there is any
      async *dataRuns() {
        throw unreadable();
      },
    };
    await expect(sendAhead(0, memoryOf(guest, { place: { file: source, fileOffset: 0 } }))).rejects.toMatchObject({
      code: 'VMMIG_MEMORY_FILE_READ',
    });
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asBytes).toEqual(range(0, pages));
  });

  test.each([
    ['from the beginning', groups, 0],
    ['after some of it, which did not go out', groups - 4, 0],
    ['after some that went out', 5, 128],
  ])('costs the migration nothing: %s', async (_, failing, sentPages) => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed, sendAhead, arrives } = one;
    let isTried = false;
    const source: MemorySource = {
      ...sourceOf(guest),
      read(offset, ...rest) {
        if (offset < failing * groupPages * pageBytes) {
          isTried = true;
          throw unreadable();
        }
        sourceOf(guest).read(offset, ...rest);
      },
    };
    await sendAhead(sentPages, memoryOf(guest, { place: { file: source, fileOffset: 0 } }));
    await until(() => isTried);
    await rig.send([contents(guest), []]);
    await arrives();
    expect(crossed.asBytes.length).toBeGreaterThanOrEqual(failing * groupPages);
  });

  test('is not looked at any longer when the relay has ended', async () => {
    const guest = randomBytes(pages * pageBytes);
    await using one = await start(guest);
    const { rig, crossed } = one;
    const looking = withResolvers();
    const source: MemorySource = {
      ...sourceOf(guest),
      // biome-ignore lint/correctness/useYield: it never comes to one
      async *dataRuns(_offset, _lengthBytes, signal) {
        looking.resolve();
        if (!signal!.aborted) await once(signal!, 'abort');
        signal!.throwIfAborted();
      },
    };
    const sending = rig.source.sendAhead(memoryOf(guest, { place: { file: source, fileOffset: 0 } }));
    await looking.promise;
    rig.source.abort();
    await expect(sending).rejects.toMatchObject({ name: 'AbortError' });
    await expect(rig.source.finished).rejects.toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
    expect(crossed.count(frameType.memory)).toBe(0);
  });
});

test('a guest arrives as it is, whatever was sent ahead and written since', { timeout: 120_000 }, async () => {
  const count = 80;
  const kind = fc.constantFrom('same' as const, 'zero' as const, 'new' as const);
  const change = fc.record({ page: fc.nat(count - 1), kind });
  const limit = fc.constantFrom(0, 20 * pageBytes, unlimited);
  const map = fc.array(fc.tuple(fc.nat(count), fc.integer({ min: 1, max: 40 }), fc.nat(count)), { maxLength: 2 });
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        zeros: fc.array(fc.nat(count - 1)),
        limits: fc.record({ limitBytes: limit, heldLimitBytes: limit }),
        map: fc.record({ runs: map, isLate: fc.boolean() }),
        cuts: fc.array(fc.nat(count), { maxLength: 3 }),
        changes: fc.array(fc.array(change, { maxLength: 20 }), { minLength: 1, maxLength: 4 }),
      }),
      async ({ zeros, limits: { limitBytes, heldLimitBytes }, map: { runs, isLate }, cuts, changes }) => {
        const disk = randomBytes(count * pageBytes);
        const guest = Buffer.from(disk);
        for (const page of zeros) write(guest, page, 0);
        await using one = await start(guest, { disk, heldLimitBytes });
        const { rig, arrives } = one;
        if (!isLate) rig.source.setCacheMap(RelayRig.map(runs));
        await rig.source.sendAhead(memoryOf(Buffer.from(guest), {}, limitBytes));
        await until(() => rig.source.state.backlogBytes === 0);
        if (isLate) rig.source.setCacheMap(RelayRig.map(runs));
        const make = (written: (typeof changes)[0]) => {
          for (const { page, kind: how } of written)
            if (how !== 'same') write(guest, page, how === 'zero' ? 0 : undefined);
        };
        make(changes[0]!);
        const ends = [...new Set([...cuts, count])].sort((left, right) => left - right);
        const passes = ends.map((end, at) => contents(guest, range(ends[at - 1] ?? 0, end)));
        for (const written of changes.slice(1)) {
          make(written);
          const dirty = new Set(written.map(({ page }) => page));
          passes.push(
            contents(
              guest,
              [...dirty].sort((left, right) => left - right),
            ),
          );
        }
        await rig.send([...passes, []]);
        await arrives();
      },
    ),
    { numRuns: 60 },
  );
});

function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((given) => {
    resolve = given;
  });
  return { promise, resolve };
}
