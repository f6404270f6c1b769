import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { PageRun } from '../../../relay/destination/postcopy/blockPages.js';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { encodeConfiguration, encodeReturnPath, type RamBlock } from '../../../stream/index.js';
import { FakeQemu } from './fakeQemu.js';

const directory = await mkdtemp(join(tmpdir(), 'vmmig-postcopy-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

const header = Buffer.from('QEVM\0\0\0\x03');
const head = Buffer.concat([header, encodeConfiguration('pc-q35-7.2')]);
const ramSection = { id: 2, version: 4 };
const devices = Buffer.from('device sections');

function block(index: number, name: string, pages: number, hostPage = 1): RamBlock {
  return { index, name, lengthBytes: pages * 4096, pageSizeBytes: hostPage * 4096, gpa: null };
}

/** Pages with numbers in them, one after the other. */
function pagesOf(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4096);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, at * 4096);
  return bytes;
}

let paths = 0;

class Rig implements AsyncDisposable {
  readonly faults: PageRun[] = [];
  readonly lost: Error[] = [];
  qemu!: FakeQemu;
  stream!: PostcopyStream;
  onFault: (run: PageRun) => void = () => {};

  static async begin(blocks: RamBlock[], options: { collectorBytes?: number; head?: Buffer } = {}): Promise<Rig> {
    const rig = new Rig();
    const path = join(directory, String(paths++));
    rig.qemu = await FakeQemu.listen(path);
    const handlers = {
      fault: (run: PageRun) => {
        rig.faults.push(run);
        rig.onFault(run);
      },
      lost: (error: Error) => void rig.lost.push(error),
    };
    rig.stream = await PostcopyStream.connect(path, handlers, options);
    rig.stream.begin({ head: options.head ?? head, ramSection, blocks });
    return rig;
  }

  /** Everything that was placed so far has arrived. */
  async arrived(pages: number): Promise<void> {
    await this.until(() => this.pagesAfter.length >= pages);
  }

  get pagesAfter(): string[] {
    return this.qemu.came.filter((each) => /:\d+$/.test(each));
  }

  async until(holds: () => boolean): Promise<void> {
    for (let tries = 0; !holds(); tries++) {
      if (tries > 2000) throw new Error(`it never happened; QEMU got: ${this.qemu.came.slice(-20).join(', ')}`);
      await sleep(1);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stream[Symbol.asyncDispose]();
    await this.qemu[Symbol.asyncDispose]();
  }
}

describe('the switch', () => {
  it('comes in the order that QEMU needs', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 16), block(1, 'rom', 2)]);
    rig.stream.place(0, 4, 2, pagesOf(1, 2), 0);
    await rig.stream.switchOver(devices);
    expect(rig.qemu.came.slice(0, 6)).toEqual([
      ...['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE'],
      // Page 4 was held back.
      ...['discard ram:0+5', 'discard ram:6+10', 'discard rom:0+2'],
    ]);
    await rig.arrived(1);
    expect(rig.qemu.came.slice(6)).toEqual(['packaged', 'ram:4']);
    expect(rig.qemu.complaints).toEqual([]);
  });

  it('drops what is stale, and leaves zero pages alone that were never anything else', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    const { stream } = rig;
    stream.place(0, 0, 40, pagesOf(...Array.from({ length: 40 }, (_, at) => at + 1)), 0);
    stream.zero(0, 40, 24);
    stream.zero(0, 10, 2);
    stream.remote(0, 20, 1);
    stream.remote(0, 21, 1);
    stream.place(0, 21, 1, pagesOf(99), 0);
    expect(stream.missing).toBe(1);
    await stream.switchOver(devices);
    expect(rig.qemu.came.filter((each) => each.startsWith('discard'))).toEqual([
      ...['discard ram:0+1', 'discard ram:10+2', 'discard ram:20+1'],
    ]);
    expect(rig.qemu.blocks.get('ram')!.values[21]).toBe(99);
  });

  it('finds something to drop when all is placed, and when all is zero', async () => {
    for (const fill of [() => 7, () => 0]) {
      await using rig = await Rig.begin([block(0, 'ram', 4)]);
      if (fill() === 0) rig.stream.zero(0, 0, 4);
      else rig.stream.place(0, 0, 4, pagesOf(7, 7, 7, 7), 0);
      expect(rig.stream.missing).toBe(0);
      await rig.stream.switchOver(devices);
      expect(await rig.stream.end()).toBe(true);
      expect(rig.qemu.complaints).toEqual([]);
      expect([...rig.qemu.blocks.get('ram')!.values]).toEqual(Array.from({ length: 4 }, fill));
    }
  });

  it('takes next to no time for 100,000 ranges in 8 GiB', async () => {
    const pages = 2 ** 21;
    await using rig = await Rig.begin([block(0, 'ram', pages)]);
    const bytes = Buffer.alloc(4096);
    for (let page = 0; page < pages; page += 20) rig.stream.zero(0, page, 10);
    for (let page = 0; page < 100_000; page++) {
      rig.stream.place(0, 20 * page, 1, bytes, 0);
      if (page % 64 === 0) await rig.stream.drained();
    }
    const started = process.cpuUsage();
    const loaded = rig.stream.switchOver(devices);
    const { user, system } = process.cpuUsage(started);
    await loaded;
    expect(rig.qemu.came.filter((each) => each.startsWith('discard')).length).toBeGreaterThan(99_000);
    // Of a budget of 20 ms, on a machine that has other things to do.
    expect((user + system) / 1000).toBeLessThan(60);
  });

  it('leaves x-ignore-shared out of the configuration, and addresses out of the blocks', async () => {
    const shared = Buffer.concat([header, encodeConfiguration('pc-q35-7.2', ['x-ignore-shared'])]);
    await using rig = await Rig.begin([{ ...block(0, 'ram', 16), gpa: 0 }], { head: shared });
    await rig.stream.switchOver(devices);
    expect(rig.qemu.blocks.get('ram')!.block.gpa).toBe(null);
    expect(rig.lost).toEqual([]);
  });
});

describe('after the switch', () => {
  it('asks for a page that is not there, once however often QEMU asks', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64), block(1, 'rom', 8)]);
    await rig.stream.switchOver(devices);
    for (const [name, page] of [
      ['ram', 5],
      ['rom', 3],
      ['ram', 5],
      ['ram', 6],
    ] as const)
      rig.qemu.touch(name, page);
    await rig.until(() => rig.faults.length === 3);
    expect(rig.faults).toEqual([
      { block: 0, page: 5, count: 1 },
      { block: 1, page: 3, count: 1 },
      { block: 0, page: 6, count: 1 },
    ]);
    expect(rig.stream.place(0, 4, 4, pagesOf(14, 15, 16, 17), 0)).toBe(4);
    expect(rig.stream.place(1, 3, 1, pagesOf(33), 0, 'local')).toBe(1);
    await rig.arrived(5);
    expect(rig.pagesAfter).toEqual(['ram:5', 'ram:6', 'rom:3', 'ram:4', 'ram:7'].sort(byArrival(rig.pagesAfter)));
    expect(rig.pagesAfter.slice(0, 2)).toEqual(['ram:5', 'ram:6']);
    await rig.until(() => rig.stream.faults!.count === 3);
    expect(rig.stream.faults).toMatchObject({
      ...{ waiting: 0, perSecond: 3 },
      answers: { remote: { count: 2 }, local: { count: 1 }, zero: { count: 0 } },
    });
    expect(rig.qemu.touch('ram', 5)).toBe(false);
  });

  it('answers itself for what is zero, and writes no zero page that nobody asks for', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    rig.stream.zero(0, 0, 32);
    await rig.stream.switchOver(devices);
    rig.qemu.touch('ram', 7);
    rig.qemu.touch('ram', 40);
    await rig.until(() => rig.faults.length === 1);
    expect(rig.stream.zero(0, 32, 32)).toBe(1);
    await rig.arrived(2);
    expect(rig.pagesAfter).toEqual(['ram:7', 'ram:40']);
    expect(rig.faults).toEqual([{ block: 0, page: 40, count: 1 }]);
    expect(await rig.stream.end()).toBe(true);
    expect(rig.pagesAfter.length).toBe(2);
    expect(rig.qemu.complaints).toEqual([]);
  });

  it('never gives a page twice', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    await rig.stream.switchOver(devices);
    expect(rig.stream.place(0, 8, 4, pagesOf(1, 1, 1, 1), 0)).toBe(4);
    expect(rig.stream.place(0, 6, 8, pagesOf(2, 2, 2, 2, 2, 2, 2, 2), 0)).toBe(4);
    expect(rig.stream.zero(0, 0, 64)).toBe(0);
    expect(rig.stream.place(0, 6, 8, pagesOf(3, 3, 3, 3, 3, 3, 3, 3), 0)).toBe(0);
    expect(await rig.stream.end()).toBe(true);
    expect([...rig.qemu.blocks.get('ram')!.values.subarray(6, 14)]).toEqual([2, 2, 1, 1, 1, 1, 2, 2]);
    expect(rig.qemu.complaints).toEqual([]);
  });

  it('lets a fault overtake what waits, also on a page that waits itself', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 8192)]);
    await rig.stream.switchOver(devices);
    rig.qemu.stall(true);
    rig.stream.place(0, 0, 4096, Buffer.alloc(4096 * 4096), 0, 'local');
    rig.onFault = ({ page }) => rig.stream.place(0, page, 1, pagesOf(5), 0);
    rig.qemu.touch('ram', 4000);
    rig.qemu.touch('ram', 8000);
    await rig.until(() => rig.faults.length === 1);
    rig.qemu.stall(false);
    await rig.arrived(4097);
    const bytesBefore = (page: number) => rig.pagesAfter.indexOf(`ram:${page}`) * 4096;
    expect(bytesBefore(8000)).toBeLessThan(512 * 1024);
    expect(bytesBefore(4000)).toBeLessThan(512 * 1024);
    expect(rig.stream.faults!.answers).toMatchObject({ local: { count: 1 }, remote: { count: 1 } });
    expect(rig.qemu.complaints).toEqual([]);
  });

  it('says when what was placed is safe with QEMU', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 8192)]);
    await rig.stream.switchOver(devices);
    const order: string[] = [];
    rig.stream.whenTaken(() => order.push('nothing'));
    rig.stream.place(0, 4096, 1, pagesOf(1), 0);
    rig.stream.whenTaken(() => order.push('a page'));
    await rig.until(() => order.includes('a page'));
    rig.qemu.stall(true);
    rig.stream.place(0, 0, 4096, Buffer.alloc(4096 * 4096), 0);
    rig.stream.whenTaken(() => order.push('many pages'));
    let hasRoom = false;
    void rig.stream.drained().then(() => {
      hasRoom = true;
    });
    await sleep(20);
    expect({ hasRoom, order }).toEqual({ hasRoom: false, order: ['nothing', 'a page'] });
    expect(rig.stream.backlogBytes).toBeGreaterThan(2 ** 23);
    rig.qemu.stall(false);
    await rig.until(() => order.length === 3);
    expect(hasRoom).toBe(true);
    expect(rig.stream.backlogBytes).toBe(0);
  });

  it('does not end while pages are missing', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    await rig.stream.switchOver(devices);
    rig.stream.zero(0, 0, 62);
    rig.stream.place(0, 63, 1, pagesOf(1), 0);
    expect(rig.stream.missingRuns()).toEqual([{ block: 0, page: 62, count: 1 }]);
    await expect(rig.stream.end()).rejects.toMatchObject({ code: 'VMMIG_RELAY_STREAM' });
  });
});

describe('huge host pages', () => {
  const blocks = () => [block(0, 'rom', 4), block(1, 'ram', 32, 8)];

  it('are placed whole, from pieces in any order', async () => {
    await using rig = await Rig.begin(blocks());
    await rig.stream.switchOver(devices);
    expect(rig.stream.place(1, 12, 4, pagesOf(5, 6, 7, 8), 0)).toBe(0);
    expect(rig.stream.zero(1, 9, 1)).toBe(0);
    expect(rig.stream.place(1, 4, 5, pagesOf(94, 95, 96, 97, 1), 0)).toBe(0);
    expect(rig.stream.place(1, 8, 4, pagesOf(1, 2, 3, 4), 0)).toBe(8);
    rig.stream.zero(0, 0, 4);
    rig.stream.zero(1, 0, 4);
    rig.stream.zero(1, 16, 16);
    expect(await rig.stream.end()).toBe(true);
    expect([...rig.qemu.blocks.get('ram')!.values.subarray(0, 16)]).toEqual([
      ...[0, 0, 0, 0, 94, 95, 96, 97],
      ...[1, 2, 3, 4, 5, 6, 7, 8],
    ]);
    expect(rig.qemu.complaints).toEqual([]);
  });

  it('are asked for whole, and answered at once when all of it is here', async () => {
    await using rig = await Rig.begin(blocks());
    await rig.stream.switchOver(devices);
    rig.stream.zero(1, 0, 8);
    rig.stream.place(1, 16, 7, pagesOf(1, 2, 3, 4, 5, 6, 7), 0);
    rig.qemu.touch('ram', 3);
    rig.qemu.touch('ram', 18);
    await rig.until(() => rig.faults.length === 1);
    expect(rig.faults).toEqual([{ block: 1, page: 16, count: 8 }]);
    rig.stream.zero(1, 23, 1);
    await rig.arrived(16);
    expect(rig.stream.faults).toMatchObject({ waiting: 0, count: 2 });
  });

  it('are dropped whole when one of their pages is stale', async () => {
    await using rig = await Rig.begin(blocks());
    rig.stream.place(1, 0, 32, Buffer.alloc(32 * 4096, 1), 0);
    rig.stream.remote(1, 9, 1);
    await rig.stream.switchOver(devices);
    expect(rig.qemu.came).toContain('discard ram:8+8');
    expect(rig.stream.missingRuns()).toEqual([
      { block: 0, page: 0, count: 4 },
      { block: 1, page: 8, count: 8 },
    ]);
  });

  it('that are not complete take bounded memory: what is forgotten is asked for', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64, 8)], { collectorBytes: 2 * 8 * 4096 });
    await rig.stream.switchOver(devices);
    for (const page of [0, 8, 16, 24]) rig.stream.place(0, page, 1, pagesOf(1), 0);
    expect(rig.faults).toEqual([
      { block: 0, page: 0, count: 8 },
      { block: 0, page: 8, count: 8 },
    ]);
    expect(rig.stream.place(0, 0, 8, pagesOf(1, 2, 3, 4, 5, 6, 7, 8), 0)).toBe(8);
  });

  it('may not be gigantic', async () => {
    await expect(Rig.begin([block(0, 'ram', 2 ** 18, 2 ** 18)])).rejects.toMatchObject({ code: 'VMMIG_RELAY_STREAM' });
  });
});

describe('a QEMU that is not one', () => {
  const asks = (name: string, offsetBytes: number, lengthBytes: number) => {
    return encodeReturnPath({ type: 'request-pages', block: name, offsetBytes, lengthBytes, named: true });
  };

  it.each<[string, Buffer, RegExp]>([
    ['speaks of an unknown block', asks('foo', 0, 4096), /RAM block "foo"/],
    ['asks for memory that is not there', asks('ram', 64 * 4096, 4096), /beyond ram/],
    ['asks for half a page', asks('ram', 0, 2048), /said what no QEMU says/],
    ['asks for a part of a huge page', asks('huge', 0, 4096), /asked for 4096 bytes at 0 of huge/],
    ['asks across huge pages', asks('huge', 4096, 8 * 4096), /asked for 32768 bytes at 4096 of huge/],
    ['asks for several pages', asks('ram', 0, 2 ** 31), /asked for 2147483648 bytes/],
    ['asks for a page of no block', Buffer.from('0004000c000000000000000000001000', 'hex'), /said what no QEMU says/],
    ['says what nobody says', Buffer.from('00630000', 'hex'), /said what no QEMU says/],
    ['gives up', encodeReturnPath({ type: 'shut', value: 1 }), /gave up/],
    [
      'sends a bitmap that nobody wanted',
      encodeReturnPath({ type: 'received-bitmap', block: 'ram', bitmap: Buffer.alloc(8) }),
      /bitmap that nobody wanted/,
    ],
  ])('that %s has lost the stream', async (_, bytes, message) => {
    await using rig = await Rig.begin([block(0, 'ram', 64), block(1, 'huge', 64, 8)]);
    await rig.stream.switchOver(devices);
    rig.qemu.raw(bytes);
    await rig.until(() => rig.lost.length > 0);
    expect(rig.lost).toMatchObject([{ code: 'VMMIG_RELAY_QEMU', message: expect.stringMatching(message) }]);
    expect(rig.faults).toEqual([]);
  });

  it('that hangs up lets nobody wait', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    await rig.stream.switchOver(devices);
    rig.stream.zero(0, 0, 64);
    rig.qemu.stall(true);
    const ended = rig.stream.end();
    rig.qemu.hangUp();
    await expect(ended).rejects.toMatchObject({ code: 'VMMIG_RELAY_QEMU' });
    expect(rig.lost.length).toBe(1);
    await rig.stream.drained();
  });

  it('that is not there is an error', async () => {
    const handlers = { fault() {}, lost() {} };
    await expect(PostcopyStream.connect(join(directory, 'nothing'), handlers)).rejects.toMatchObject({
      code: 'VMMIG_RELAY_QEMU',
    });
  });
});

/** What may happen to a run of pages, with what it is from then on. */
const operation = fc.record({
  what: fc.constantFrom('place', 'zero', 'remote', 'touch'),
  block: fc.integer({ min: 0, max: 1 }),
  page: fc.integer({ min: 0, max: 63 }),
  count: fc.integer({ min: 1, max: 20 }),
  value: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
});

it('gives QEMU exactly the latest version of every page, whatever comes in whatever order', async () => {
  const before = fc.array(operation, { maxLength: 40 });
  const after = fc.array(operation, { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(before, after, async (operationsBefore, operationsAfter) => {
      await using rig = await Rig.begin([block(0, 'rom', 64), block(1, 'ram', 64, 8)]);
      const { stream, qemu } = rig;
      const memory = [new Uint32Array(64), new Uint32Array(64)];
      const give = (at: number, page: number, count: number) => {
        for (let each = page; each < page + count; each++) {
          const value = memory[at]![each]!;
          if (value === 0) stream.zero(at, each, 1);
          else stream.place(at, each, 1, pagesOf(value), 0);
        }
      };
      for (const { what, block: at, page, count, value } of operationsBefore) {
        const length = Math.min(count, 64 - page);
        if (what === 'touch') continue;
        memory[at]!.fill(what === 'zero' ? 0 : value, page, page + length);
        if (what === 'zero') stream.zero(at, page, length);
        else if (what === 'remote') stream.remote(at, page, length);
        else stream.place(at, page, length, pagesOf(...new Array<number>(length).fill(value)), 0);
      }
      await stream.switchOver(devices);
      rig.onFault = (run) => give(run.block, run.page, run.count);
      let touched = 0;
      for (const { what, block: at, page, count } of operationsAfter) {
        if (what === 'touch' && qemu.touch(at === 0 ? 'rom' : 'ram', page)) touched++;
        else give(at, page, Math.min(count, 64 - page));
        if (touched % 4 === 1) await sleep(0);
      }
      for (const run of stream.missingRuns()) give(run.block, run.page, run.count);
      expect(stream.missing).toBe(0);
      expect(await stream.end()).toBe(true);
      expect(qemu.complaints).toEqual([]);
      expect([qemu.blocks.get('rom')!.values, qemu.blocks.get('ram')!.values]).toEqual(memory);
      expect(rig.lost).toEqual([]);
    }),
    { numRuns: 150 },
  );
});

function byArrival(came: string[]): (a: string, b: string) => number {
  return (a, b) => came.indexOf(a) - came.indexOf(b);
}
