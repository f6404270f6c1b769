import { describe, expect, test } from 'vitest';
import { Faults } from '../../../relay/destination/switch/faults.js';
import type { Guest } from '../../../relay/destination/switch/guest.js';
import { BatchBuilder } from '../../../relay/link/batch.js';

const pageBytes = 4096;
const pages = 2 ** 20;

describe('What the guest waits for', () => {
  const here = new Set<number>();
  const guest = {
    pagesOfBlock: [pages],
    disks: { hurry: () => 0 },
    stream: { isHere: (_block: number, page: number) => here.has(page) },
  } as unknown as Guest;
  const link = { sendUrgent: () => {} };

  function answer(...numbers: readonly number[]): Buffer {
    const builder = new BatchBuilder();
    for (const page of numbers) builder.addPage(0, page, Buffer.alloc(pageBytes, 1), 0);
    return builder.take(false);
  }

  test('may be answered with its neighbours, and with nothing else, however much was asked for', () => {
    const faults = new Faults();
    for (const page of [5, 100]) faults.raise({ block: 0, page, count: 1 }, guest, link);
    expect(faults.answered(answer(0, 15), guest).records).toHaveLength(2);
    expect(faults.answered(answer(96), guest).records).toHaveLength(1);
    for (const page of [16, 95, 112, 5000])
      expect(() => faults.answered(answer(page), guest), `page ${page}`).toThrow(/nobody asked/);
    faults.forget();
    expect(() => faults.answered(answer(0), guest)).toThrow(/nobody asked/);
  });

  test('is forgotten when it is here', () => {
    const faults = new Faults();
    for (let page = 0; page < 1023 * 16; page += 16) faults.raise({ block: 0, page, count: 1 }, guest, link);
    for (let page = 0; page < 32; page++) if (page !== 20) here.add(page);
    faults.raise({ block: 0, page: pages - 1, count: 1 }, guest, link);
    expect(() => faults.answered(answer(3), guest)).toThrow(/nobody asked/);
    expect(faults.answered(answer(20), guest).records).toHaveLength(1);
  });
});
