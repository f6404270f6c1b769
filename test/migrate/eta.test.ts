import { describe, expect, test } from 'vitest';
import type { Written } from '../../host-service/protocol.js';
import { type EtaView, etaMs } from '../../migrate/eta.js';

/** 400 MB of 1 GB have ever been written to, half of that was sent; the link takes 10 MB/s. Nobody could look at the rest. */
const halfway: EtaView = {
  totalPages: 250_000,
  seenPages: 125_000,
  sentPages: 50_000,
  teleportedPages: 0,
  zeroPages: 75_000,
  sentBytes: 200e6,
  ahead: null,
  touchedPages: 100_000,
  cachedPages: 0,
  linkBytesPerSecond: 10e6,
  pagesPerSecond: 100_000,
  backlogBytes: 10e6,
  remainingBytes: 500e6,
  dirtySyncCount: 1,
  dirtyBytesPerSecond: null,
  wireBytesPerMemoryByte: 1,
  stopMs: 100,
};

describe('the time that is left', () => {
  test('of the first pass is what a look at the rest has shown', () => {
    const seen = { ...halfway, ahead: { pages: 30_000, bytes: 60e6, written: null } };
    expect(etaMs(seen)).toBeCloseTo(6_000 + 1_000 + 100, -2);
    expect(etaMs({ ...seen, touchedPages: null, sentPages: 0 })).toBeCloseTo(6_000 + 1_000 + 100, -2);
    expect(etaMs({ ...seen, ahead: { pages: 0, bytes: 0, written: null } })).toBeCloseTo(1_000 + 100, -2);
  });

  test('is no less than QEMU takes to read what is ahead, page cache included', () => {
    const seen = { ...halfway, ahead: { pages: 50_000, bytes: 10e6, written: null }, pagesPerSecond: 10_000 };
    expect(etaMs(seen)).toBeCloseTo(5_000 + 100, -2);
  });

  test('is longer by what the guest writes meanwhile, and while that is sent', () => {
    const writing = (written: Partial<Written>): EtaView => ({
      ...halfway,
      ahead: {
        ...{ pages: 30_000, bytes: 60e6 },
        written: { behindBytes: 10e6, bytesPerSecond: 2e6, everBytes: 20e6, newBytesPerSecond: 2e6, ...written },
      },
    });
    // Until the first pass is over 7 s, in which 14 MB are written; a fifth as long again for each pass.
    expect(etaMs(writing({}))).toBeCloseTo(7_000 + 2_400 / 0.8 + 100, -2);
    // The same 12 MB again and again.
    expect(etaMs(writing({ everBytes: 12e6, newBytesPerSecond: 0 }))).toBeCloseTo(7_000 + 1_200 / 0.8 + 100, -2);
    expect(Number.isFinite(etaMs(writing({ bytesPerSecond: 1e9 }))!)).toBe(true);
  });

  test('without such a look is what has been touched, by what pages have cost so far', () => {
    // 50,000 more at 4 kB each, and what is under way.
    expect(etaMs(halfway)).toBeCloseTo(20_000 + 1_000 + 100, -2);
    expect(etaMs({ ...halfway, sentBytes: 100e6 })).toBeCloseTo(10_000 + 1_000 + 100, -2);
  });

  test('is never more than the pages that are left', () => {
    const all = { ...halfway, touchedPages: 250_000, zeroPages: 0 };
    expect(etaMs({ ...all, seenPages: 50_000 })).toBeCloseTo(80_000 + 1_000 + 100, -2);
    expect(etaMs({ ...halfway, touchedPages: 1_000 })).toBeCloseTo(1_000 + 100, -2);
  });

  test('does not count page cache, which comes from the disk', () => {
    expect(etaMs({ ...halfway, cachedPages: 25_000 })).toBeCloseTo(10_000 + 1_000 + 100, -2);
    expect(etaMs({ ...halfway, cachedPages: 50_000 })).toBeCloseTo(1_000 + 100, -2);
    expect(etaMs({ ...halfway, cachedPages: 25_000, teleportedPages: 25_000 })).toBeCloseTo(10_000 + 1_000 + 100, -2);
  });

  test('is no less than QEMU takes for what the link need not carry', () => {
    expect(etaMs({ ...halfway, cachedPages: 50_000, pagesPerSecond: 10_000 })).toBeCloseTo(5_000 + 100, -2);
    expect(etaMs({ ...halfway, pagesPerSecond: 10_000 })).toBeCloseTo(20_000 + 1_000 + 100, -2);
  });

  test('learns that memory which was written to may be zero again', () => {
    // 25,000 of the zeroes were: a third of what was written to and seen.
    const again = { ...halfway, touchedPages: 200_000 };
    const left = 200_000 - 50_000 - 25_000;
    expect(etaMs(again)).toBeCloseTo(((left * 2) / 3 / 50_000) * 20_000 + 1_000 + 100, -2);
  });

  test('without knowing what will have to be sent goes by what had to be', () => {
    expect(etaMs({ ...halfway, touchedPages: null })).toBeCloseTo(20_000 + 1_000 + 100, -2);
  });

  test('after it is what is dirty, and what will be', () => {
    const later = { ...halfway, dirtySyncCount: 2, remainingBytes: 100e6 };
    expect(etaMs(later)).toBeCloseTo(10_000 + 1_000 + 100, -2);
    expect(etaMs({ ...later, dirtyBytesPerSecond: 5e6 })).toBeCloseTo(20_000 + 1_000 + 100, -2);
    expect(etaMs({ ...later, wireBytesPerMemoryByte: 0.5 })).toBeCloseTo(5_000 + 1_000 + 100, -2);
    expect(Number.isFinite(etaMs({ ...later, dirtyBytesPerSecond: 50e6 })!)).toBe(true);
  });

  test('is not guessed before anything is known', () => {
    expect(etaMs({ ...halfway, linkBytesPerSecond: null })).toBeNull();
    expect(etaMs({ ...halfway, linkBytesPerSecond: 0 })).toBeNull();
    expect(etaMs({ ...halfway, linkBytesPerSecond: null, dirtySyncCount: 3 })).toBeNull();
    expect(etaMs({ ...halfway, sentPages: 0 })).toBeNull();
    expect(etaMs({ ...halfway, totalPages: 0 })).toBeNull();
  });
});
