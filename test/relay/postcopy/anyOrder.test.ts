import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { block, devices, pagesOf, Rig } from './rig.js';

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
