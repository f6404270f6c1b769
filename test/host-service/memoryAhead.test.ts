import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { aheadOf, MemoryAhead } from '../../host-service/memoryAhead.js';
import type { GuestInspection, QmpMonitor } from '../../hypervisor/index.js';
import type { PageFate } from '../../relay/source/streamToFrames.js';

const runs = [0, 256, 512].map((page) => ({ gpa: page * 4096, block: 'pc.ram', page, pages: 4, weight: 64 }));
const found = [
  { pages: 4, bytes: 16_384 },
  { pages: 2, bytes: 1_000 },
  { pages: 0, bytes: 0 },
];

/** The first pass has come to this page. */
const past =
  (furthest: number) =>
  (_block: string, page: number): PageFate =>
    page <= furthest ? 'passed' : 'sent';

describe('what the first pass has ahead of it', () => {
  test('is what was found, in proportion', () => {
    expect(aheadOf(runs, found, past(-1))).toEqual({ pages: 6 * 64, bytes: 17_384 * 64 });
  });

  test('shrinks as the pass goes on', () => {
    expect(aheadOf(runs, found, past(0))).toEqual({ pages: 2 * 64, bytes: 64_000 });
    expect(aheadOf(runs, found, past(256))).toEqual({ pages: 0, bytes: 0 });
  });

  test('costs the link nothing where it comes from the disk, and QEMU reads it all the same', () => {
    const fateOf = (_block: string, page: number) => (page === 0 ? 'onDisk' : 'sent');
    expect(aheadOf(runs, found, fateOf)).toEqual({ pages: 6 * 64, bytes: 64_000 });
  });

  test('leaves out what could not be looked at', () => {
    expect(aheadOf(runs, [null, found[1]!, null], past(-1))).toEqual({ pages: 2 * 64, bytes: 64_000 });
  });

  test.each([
    ['QEMU does not say where its memory is', () => Promise.reject(new Error('no'))],
    ['its process cannot be looked at', () => Promise.resolve('Host virtual address for 0x0 (pc.ram) is 0x1000')],
  ])('is not known when %s', async (_why, execute) => {
    const memory = { gpaMap: [{ gpaStart: 0, lengthBytes: 2 ** 20, block: 'pc.ram', blockOffset: 0 }] };
    // No process has this id: the kernel's largest is 2^22.
    const inspection = { process: { pid: 2 ** 30 }, memory } as unknown as GuestInspection;
    using ahead = new MemoryAhead({ execute } as unknown as QmpMonitor, inspection, { compress: true });
    ahead.watch(past(-1));
    await delay(20);
    expect(ahead.estimate(past(-1))).toBeNull();
  });
});
