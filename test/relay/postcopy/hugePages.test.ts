import { describe, expect, it } from 'vitest';
import { block, devices, pagesOf, Rig } from './rig.js';

describe('huge host pages', () => {
  const blocks = () => [block(0, 'rom', 4), block(1, 'ram', 32, 8)];

  it('are placed whole, from pieces in any order', async () => {
    await using rig = await Rig.begin(blocks());
    await rig.stream.switchOver(devices);
    expect(rig.stream.place(1, 12, 4, pagesOf(5, 6, 7, 8), 0)).toBe(0);
    expect(rig.stream.zero(1, 9, 1)).toBe(0);
    expect(rig.stream.zero(1, 12, 1)).toBe(0);
    expect(rig.stream.place(1, 12, 1, pagesOf(5), 0)).toBe(0);
    expect(rig.stream.zero(1, 4, 1)).toBe(0);
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
    await rig.until(() => rig.faults.length >= 2);
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
