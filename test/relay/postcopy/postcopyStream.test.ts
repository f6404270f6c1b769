import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { encodeConfiguration } from '../../../stream/index.js';
import { block, devices, header, pagesOf, Rig } from './rig.js';

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
    expect(rig.pagesAfter.toSorted()).toEqual(['ram:4', 'ram:5', 'ram:6', 'ram:7', 'rom:3']);
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

  it.each([1, 4])(
    'answers on the second connection what is asked for when the stream has ended, in host pages of %i',
    async (hostPage) => {
      await using rig = await Rig.begin([block(0, 'ram', 64, hostPage)], { mayPreempt: true });
      await rig.until(() => rig.qemu.hasSecond);
      await rig.stream.switchOver(devices);
      rig.stream.zero(0, 0, 64);
      rig.qemu.asksLast = { name: 'ram', page: 40 };
      expect(await rig.stream.end()).toBe(true);
      expect(rig.pagesAfter).toEqual(Array.from({ length: hostPage }, (_, at) => `ram:${40 + at}`));
      expect(rig.qemu.complaints).toEqual([]);
      expect(rig.qemu.came).not.toContain('end of the second');
    },
  );

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
