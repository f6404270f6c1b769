import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FileCapture, heldDisk } from '../../pager/index.js';
import { BatchBuilder } from '../../relay/link/batch.js';
import { TestDestination } from './destination.js';
import { digester, pageBytes, pageOf, TestMemory } from './memory.js';

const MiB = 1024 ** 2;

type Generated<A> = A extends fc.Arbitrary<infer T> ? T : never;

/** One block of that many pages, of which some have version 1. */
async function guest(pages: number, written: readonly number[]) {
  const memory = await TestMemory.create([pages]);
  for (const page of written) memory.write(0, page, pageOf(page, 1));
  const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: 64 * MiB });
  const destination = new TestDestination(capture, [pages], 64 * MiB);
  return { memory, capture, destination, [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose]() };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

function expectAll(destination: TestDestination, memory: TestMemory, pages: number, block = 0): void {
  for (let page = 0; page < pages; page++) {
    const isSame = destination.placed.get(`${block}/${page}`)?.equals(memory.read(block, page));
    expect(isSame, `page ${page} of block ${block}`).toBe(true);
  }
}

describe('a capture from a memory file', () => {
  test('tells holes and zero pages as such, and each page once', async () => {
    await using one = await guest(1000, range(100, 300));
    const { memory, capture, destination } = one;
    memory.write(0, 500, pageOf(500, 0)); // a page that is there, and zero
    await capture.survey();
    expect(capture.unsent).toEqual({ fill: 799, bytes: 201, reference: 0 });
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 1000);
    expect(destination.placed.size).toBe(1000);
    expect(capture.isEmpty).toBe(true);
    expect([...capture.remoteSet(0)]).toEqual([]);
  });

  test('needs no survey', async () => {
    await using one = await guest(600, range(20, 40));
    one.capture.freeze();
    one.destination.isSwitched = true;
    one.destination.drain();
    expectAll(one.destination, one.memory, 600);
  });

  test('hints what is favoured first, and before the page cache is known nothing else', async () => {
    const memory = await TestMemory.create([512]);
    await using _memory = memory;
    for (const page of range(0, 256)) memory.write(0, page, pageOf(page, 1));
    const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: 64 * MiB, awaitsCache: true });
    const destination = new TestDestination(capture, [512], 64 * MiB);
    await capture.survey();
    expect(capture.awaitsAll).toBe(true);
    capture.favour([{ block: 0, page: 130, count: 20 }]);
    expect(capture.awaitsAll).toBe(false);
    destination.receive(capture.fillBatch(destination.builder, 128)!);
    expect(capture.fillBatch(destination.builder, 128)).toBe(null);
    expect(capture.awaitsAll).toBe(true);
    expect(destination.hintedPages).toBe(32);
    capture.hintAll();
    destination.drain();
    expect(destination.hintedPages).toBe(256);
  });

  test('does not hint all that is favoured before the page cache, which may be among it, is known', async () => {
    const pages = 6144;
    const memory = await TestMemory.create([pages]);
    await using _memory = memory;
    for (const page of range(0, pages)) memory.write(0, page, pageOf(page, 1));
    const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: 64 * MiB, awaitsCache: true });
    const destination = new TestDestination(capture, [pages], 64 * MiB);
    await capture.survey();
    capture.favour([{ block: 0, page: 0, count: pages }]);
    while (!capture.awaitsAll) destination.receive(capture.fillBatch(destination.builder, 128)!);
    expect(destination.hintedPages).toBe(4096);
    capture.hintAll();
    destination.drain();
    expect(destination.hintedPages).toBe(pages);
  });

  test('tells what is favoured before other bytes', async () => {
    await using one = await guest(512, range(0, 256));
    one.capture.favour([{ block: 0, page: 200, count: 3 }]);
    one.capture.freeze();
    one.destination.isSwitched = true;
    one.destination.receive(one.capture.fillBatch(one.destination.builder, 3)!);
    expect(one.destination.order.filter((page) => Number(page.split('/')[1]) < 256)).toEqual([
      '0/200',
      '0/201',
      '0/202',
    ]);
  });

  test('finds the pages that are written to again and again', async () => {
    await using one = await guest(512, range(0, 256));
    const { memory, capture } = one;
    await capture.survey();
    let version = 2;
    const write = () => {
      for (const page of [7, 100]) memory.write(0, page, pageOf(page, version));
      version++;
    };
    do write();
    while (capture.watch(0));
    write();
    expect(capture.watch(0)).toBe(false);
    memory.write(0, 100, pageOf(100, version));
    capture.watch(0);
    expect(capture.written).toEqual([
      { block: 0, page: 100 },
      { block: 0, page: 7 },
    ]);
  });

  test('sends what was hinted and has not changed as digests, and what has changed first of all bytes', async () => {
    await using one = await guest(512, range(0, 256));
    const { memory, capture, destination } = one;
    await capture.survey();
    destination.drain();
    expect(destination.hintedPages).toBe(256);
    expect(capture.hintedBytes).toBe(256 * pageBytes);
    expect([...capture.remoteSet(0)]).toEqual([0, 512]);
    const hintBytes = destination.wireBytes;
    memory.write(0, 100, pageOf(100, 2));
    memory.write(0, 300, pageOf(300, 2)); // in what was a hole
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 512);
    expect(destination.confirmedPages).toBe(256 - 1);
    expect(destination.resentPages).toBe(0);
    const whole = range(0, 16).map((group): [number, number] => [16 * group, 16]);
    expect(destination.confirmed).toEqual([...whole.slice(0, 6), [96, 4], [101, 11], ...whole.slice(7)]);
    expect(destination.bytesOrder).toEqual(['0/100', '0/300']);
    expect(destination.wireBytes - hintBytes).toBeLessThan(3 * pageBytes);
  });

  test('sends what has changed since it was hinted before other bytes, also before those that come earlier', async () => {
    await using one = await guest(512, range(100, 356));
    const { memory, capture, destination } = one;
    await capture.survey();
    destination.drain();
    for (const page of [10, 120, 125]) memory.write(0, page, pageOf(page, 2)); // the first one in what was a hole
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 512);
    expect(destination.bytesOrder).toEqual(['0/120', '0/125', '0/10']);
  });

  test.each<[string, number[], [number, number][]]>([
    ['a first page', [32], [[33, 15]]],
    ['a last page', [47], [[32, 15]]],
    [
      'pages among them',
      [35, 36, 40],
      [
        [32, 3],
        [37, 3],
        [41, 7],
      ],
    ],
    ['all', range(32, 48), []],
  ])('sends of pages that were hinted together just what has changed: %s', async (_, changed, around) => {
    await using one = await guest(64, range(0, 64));
    const { memory, capture, destination } = one;
    destination.drain();
    for (const page of changed) memory.write(0, page, pageOf(page, 2));
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 64);
    expect(destination.confirmed).toEqual([[0, 16], [16, 16], ...around, [48, 16]]);
    expect(destination.bytesOrder).toEqual(changed.map((page) => `0/${page}`));
    expect(destination.resentPages).toBe(0);
    expect(destination.held.heldBytes).toBe(changed.length * pageBytes);
  });

  test('gives the bytes of what has changed unseen, and of what was sent with it', async () => {
    await using one = await guest(64, range(0, 64));
    const { memory, capture, destination } = one;
    destination.drain();
    // Bits of the CRC's polynomial, from the lowest of each byte on: it stays as it was.
    const bytes = memory.read(0, 36);
    for (const [at, bit] of [...'100000100110000010001110110110111'].entries())
      if (bit === '1') bytes[at >>> 3]! ^= 1 << (at & 7);
    expect(crc32(bytes)).toBe(crc32(memory.read(0, 36)));
    memory.write(0, 36, bytes);
    memory.write(0, 40, pageOf(40, 2));
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 64);
    expect(destination.resentPages).toBe(8);
    expect(destination.confirmedPages).toBe(64 - 8 - 1);
    expect(destination.bytesOrder).toEqual(['0/40']);
  });

  test('hints again what has changed in the meantime, and that alone', async () => {
    await using one = await guest(256, range(0, 256));
    const { memory, capture, destination } = one;
    destination.drain();
    memory.write(0, 17, pageOf(17, 2));
    memory.write(0, 40, pageOf(40, 0));
    capture.hintAgain();
    destination.drain();
    expect(destination.hintedPages).toBe(256 + 32);
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 256);
    expect(destination.confirmedPages).toBe(256);
  });

  test('gives pages during the pause, before the switch, which are not remote then', async () => {
    await using one = await guest(256, range(0, 256));
    const { memory, capture, destination } = one;
    destination.drain();
    capture.freeze();
    const { sent } = capture.takeNow(0, 0, 64, destination.builder);
    destination.receive(sent!);
    expect(sent).toMatchObject({ referencePages: 64, heldPages: 64, bytesPages: 0, fillPages: 0 });
    expect([...capture.remoteSet(0)]).toEqual([64, 192]);
    destination.isSwitched = true;
    destination.drain();
    expectAll(destination, memory, 256);
    expect(destination.confirmedPages).toBe(256);
    expect(capture.isEmpty).toBe(false);
    capture.acknowledged(sent!.token);
    expect(capture.isEmpty).toBe(true);
  });

  test('keeps the destination to its limit, and does without what it has dropped', async () => {
    await using memory = await TestMemory.create([256]);
    for (const page of range(0, 256)) memory.write(0, page, pageOf(page, 1));
    const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: 64 * pageBytes });
    const destination = new TestDestination(capture, [256], 32 * pageBytes);
    destination.drain();
    expect(destination.hintedPages).toBe(64);
    expect(destination.held.heldBytes).toBe(32 * pageBytes);
    capture.freeze();
    destination.isSwitched = true;
    destination.drain();
    expect(destination.confirmedPages).toBe(32);
    expect(destination.resentPages).toBe(32);
    expectAll(destination, memory, 256);
  });

  test('hints nothing where nothing would be held', async () => {
    await using memory = await TestMemory.create([64]);
    const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: 0 });
    expect(capture.isHinted).toBe(true);
    expect(capture.fillBatch(new BatchBuilder(), 128)).toBeNull();
  });

  test('sends page cache as references with the digest of the final bytes, and bytes where the disk differs', async () => {
    await using one = await guest(512, range(0, 256));
    const { memory, capture, destination } = one;
    for (const page of range(32, 160)) destination.disk.set(`3/${page * pageBytes}`, pageOf(page, 1));
    const run = (page: number) => ({ block: 0, page, count: 64, disk: 3, diskOffsetBytes: page * pageBytes });
    capture.setCache([run(96), run(32), { ...run(0), block: 1 }, { ...run(500), page: 500 }]);
    await capture.survey();
    destination.drain();
    expect(destination.hintedPages).toBe(128);
    memory.write(0, 100, pageOf(100, 2));
    capture.freeze();
    destination.isSwitched = true;
    destination.wireBytes = 0;
    destination.drain();
    expectAll(destination, memory, 512);
    expect(destination.resentPages).toBe(64);
    expect(destination.wireBytes).toBeLessThan(1000);
  });

  test('answers a fault at once: a hint checked, page cache by its reference, the rest as bytes', async () => {
    await using one = await guest(512, range(0, 256));
    const { memory, capture, destination } = one;
    const pages = range(128, 192);
    for (const page of pages) destination.disk.set(`0/${page * pageBytes}`, pageOf(page, 1));
    capture.setCache([{ block: 0, page: 128, count: 64, disk: 0, diskOffsetBytes: 128 * pageBytes }]);
    destination.drain();
    for (const page of [20, 40]) memory.write(0, page, pageOf(page, 2));
    capture.freeze();
    destination.isSwitched = true;
    const fault = (page: number) => {
      const { sent, inFlightPages } = capture.takeNow(0, page, 1, destination.builder);
      if (sent !== null) destination.receive(sent);
      return [sent?.fillPages, sent?.bytesPages, sent?.referencePages, inFlightPages];
    };
    expect(fault(3)).toEqual([0, 0, 16, 0]);
    expect(fault(3)).toEqual([undefined, undefined, undefined, 1]);
    expect(fault(21)).toEqual([0, 0, 15, 0]);
    expect(fault(20)).toEqual([0, 1, 0, 0]);
    expect(fault(40)).toEqual([0, 1, 15, 0]);
    expect(fault(150)).toEqual([0, 0, 64, 0]);
    expect(fault(400)).toEqual([1, 0, 0, 0]);
    const whole = capture.takeNow(0, 192, 64, destination.builder);
    destination.receive(whole.sent!);
    expect(whole.sent).toMatchObject({ referencePages: 64 });
    destination.drain();
    expectAll(destination, memory, 512);
  });

  test('sends no page twice when a hint reaches into what became page cache later', async () => {
    await using one = await guest(64, range(0, 64));
    const { memory, capture, destination } = one;
    destination.drain();
    memory.write(0, 3, pageOf(3, 2));
    capture.setCache([{ block: 0, page: 8, count: 16, disk: 0, diskOffsetBytes: 0 }]);
    capture.freeze();
    destination.isSwitched = true;
    destination.receive(capture.takeNow(0, 8, 1, destination.builder).sent!);
    destination.drain();
    expectAll(destination, memory, 64);
  });

  test('sends the neighbours of a fault before other bytes', async () => {
    await using one = await guest(512, range(0, 512));
    const { capture, destination, memory } = one;
    capture.freeze();
    destination.isSwitched = true;
    capture.moveToFront(0, 300, 16);
    capture.moveToFront(0, 400, 16);
    destination.drain(32);
    expect(destination.order.slice(0, 33)).toEqual(
      [...range(400, 416), ...range(300, 316), 0].map((page) => `0/${page}`),
    );
    expectAll(destination, memory, 512);
  });

  test('begins again with a new relay from what QEMU has', async () => {
    await using one = await guest(512, range(0, 256));
    const { memory, capture, destination } = one;
    await capture.survey();
    destination.drain();
    capture.freeze();
    for (let batches = 0; batches < 3; batches++) capture.fillBatch(destination.builder, 16);
    const next = new TestDestination(capture, [512], 64 * MiB);
    for (const page of range(64, 128)) next.placed.set(`0/${page}`, memory.read(0, page));
    capture.resync((block, page) => next.placed.has(`${block}/${page}`));
    expect([...capture.remoteSet(0)]).toEqual([0, 64, 128, 384]);
    next.isSwitched = true;
    next.drain();
    expectAll(next, memory, 512);
    expect(capture.isEmpty).toBe(true);
  });

  test('gives the bytes of a reference once, and knows no batch that is not under way', async () => {
    await using one = await guest(64, range(0, 64));
    const { capture, destination } = one;
    destination.drain();
    capture.freeze();
    const { token } = capture.fillBatch(destination.builder, 64)!;
    expect(destination.builder.contents().records[0]).toMatchObject({ disk: heldDisk, page: 0, count: 16 });
    expect(capture.bytesOf(token, 0)).toMatchObject({ block: 0, page: 0, count: 16 });
    expect(capture.bytesOf(token, 0)).toBeNull();
    expect(capture.bytesOf(token, 99)).toBeNull();
    expect(capture.acknowledged(token)).toBe(true);
    expect(capture.acknowledged(token)).toBe(false);
    expect(capture.bytesOf(token, 1)).toBeNull();
  });

  test('ends at the destination with what the guest had, whatever it did meanwhile', { timeout: 60_000 }, async () => {
    const pages = 200;
    const page = fc.integer({ min: 0, max: pages - 1 });
    const block = fc.constantFrom(0, 2);
    const before = fc.oneof(
      fc.record({ do: fc.constant('write' as const), block, page, version: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ do: fc.constant('hint' as const), limit: fc.integer({ min: 16, max: 128 }) }),
      fc.constant({ do: 'again' as const }),
      fc.constant({ do: 'survey' as const }),
      fc.record({
        do: fc.constant('cache' as const),
        block,
        page,
        count: fc.integer({ min: 1, max: 64 }),
        version: fc.nat(2),
      }),
    );
    const after = fc.oneof(
      fc.record({ do: fc.constant('fault' as const), block, page, count: fc.constantFrom(1, 16, 64) }),
      fc.record({ do: fc.constant('front' as const), block, page, count: fc.constantFrom(1, 16, 64) }),
      fc.record({ do: fc.constant('send' as const), limit: fc.integer({ min: 1, max: 128 }) }),
      fc.constant({ do: 'acknowledge' as const }),
    );
    const run = async (first: Generated<typeof before>[], then: Generated<typeof after>[], limit: number) => {
      await using memory = await TestMemory.create([pages, null, pages]);
      const capture = new FileCapture(memory.blocks, digester, { hintLimitBytes: limit });
      const destination = new TestDestination(capture, [pages, pages, pages], MiB);
      const tokens: number[] = [];
      const send = (sent: ReturnType<typeof capture.fillBatch>) => {
        if (sent === null) return;
        destination.receive(sent);
        tokens.push(sent.token);
      };
      const cache = new Map<
        string,
        { block: number; page: number; count: number; disk: number; diskOffsetBytes: number }
      >();
      for (const step of first) {
        if (step.do === 'write') memory.write(step.block, step.page, pageOf(step.page, step.version));
        else if (step.do === 'hint') send(capture.fillBatch(destination.builder, step.limit));
        else if (step.do === 'again') capture.hintAgain();
        else if (step.do === 'survey') await capture.survey();
        else {
          const diskOffsetBytes = (step.block * pages + step.page) * pageBytes;
          cache.set(`${step.block}/${step.page}`, { ...step, disk: 1, diskOffsetBytes });
          for (let at = 0; at < step.count; at++)
            destination.disk.set(`1/${diskOffsetBytes + at * pageBytes}`, pageOf(step.page + at, step.version));
          capture.setCache([...cache.values()]);
        }
      }
      capture.freeze();
      for (const step of then) {
        if (step.do === 'acknowledge') capture.acknowledged(tokens.splice(tokens.length >> 1, 1)[0] ?? -1);
        else {
          destination.isSwitched = true;
          if (step.do === 'fault') send(capture.takeNow(step.block, step.page, step.count, destination.builder).sent);
          else if (step.do === 'front') capture.moveToFront(step.block, step.page, step.count);
          else send(capture.fillBatch(destination.builder, step.limit));
        }
        const placed = destination.placed.size;
        const unsent = [0, 2].flatMap((one) => [...capture.remoteSet(one)].filter((_, at) => at % 2 === 1));
        expect(unsent.reduce((sum, count) => sum + count, 0)).toBe(2 * pages - placed);
      }
      destination.isSwitched = true;
      destination.drain();
      for (const token of tokens) capture.acknowledged(token);
      expect(capture.remaining).toEqual({ fill: 0, bytes: 0, reference: 0 });
      for (const one of [0, 2]) expectAll(destination, memory, pages, one);
    };
    await fc.assert(
      fc.asyncProperty(
        fc.array(before, { maxLength: 60 }),
        fc.array(after, { maxLength: 30 }),
        fc.constantFrom(0, 64 * pageBytes, MiB),
        run,
      ),
      { numRuns: 150 },
    );
  });
});

test('a builder that is nearly full gets no more than it takes', async () => {
  await using one = await guest(256, range(0, 256));
  one.capture.freeze();
  const builder = new BatchBuilder();
  for (let page = 0; page < 120; page++) builder.addPage(1, page, pageOf(page, 1), 0);
  const { sent } = one.capture.takeNow(0, 0, 256, builder);
  expect(sent).toMatchObject({ bytesPages: 8 });
  expect([...one.capture.remoteSet(0)]).toEqual([8, 248]);
});
