import { describe, expect, test } from 'vitest';
import { LinkMeter } from '../../migrate/linkMeter.js';

const pageBytes = 4096;

/** Ten samples a second, each with so many bytes on the wire and pages of memory more than the last. */
function feed(
  meter: LinkMeter,
  from: { atMs: number; wire: number; pages: number },
  samples: number,
  wire: number,
  pages: number,
) {
  for (let sample = 0; sample < samples; sample++) {
    meter.add(from.atMs, from.wire, from.pages);
    from.atMs += 100;
    from.wire += wire;
    from.pages += pages;
  }
}

describe('the link meter', () => {
  test('knows nothing before the second sample, and guesses nothing', () => {
    const meter = new LinkMeter();
    expect(meter.bytesPerSecond).toBe(0);
    expect(meter.capacityBytesPerSecond).toBe(0);
    expect(meter.wireBytesPerMemoryByte).toBe(1);
    meter.add(0, 1_000_000, 1000);
    expect(meter.bytesPerSecond).toBe(0);
    expect(meter.wireBytesPerMemoryByte).toBe(1);
  });

  test('measures the last second', () => {
    const meter = new LinkMeter();
    const at = { atMs: 0, wire: 0, pages: 0 };
    feed(meter, at, 30, 2_500_000, 1000);
    expect(meter.bytesPerSecond).toBeCloseTo(25_000_000, -5);
    feed(meter, at, 15, 250_000, 1000);
    expect(meter.bytesPerSecond).toBeCloseTo(2_500_000, -5);
  });

  test('remembers what the link could take when it has little to do', () => {
    const meter = new LinkMeter();
    const at = { atMs: 0, wire: 0, pages: 0 };
    feed(meter, at, 30, 2_500_000, 1000);
    feed(meter, at, 12, 1000, 10);
    expect(meter.bytesPerSecond).toBeLessThan(1_000_000);
    expect(meter.capacityBytesPerSecond).toBeGreaterThan(10_000_000);
  });

  test('forgets it in time: a link that has become slow is believed', () => {
    const meter = new LinkMeter();
    const at = { atMs: 0, wire: 0, pages: 0 };
    feed(meter, at, 30, 2_500_000, 1000);
    feed(meter, at, 100, 100_000, 1000);
    expect(meter.capacityBytesPerSecond).toBeLessThan(2_000_000);
  });

  test('does not hold it against a link that it has nothing to do', () => {
    const meter = new LinkMeter();
    const at = { atMs: 0, wire: 0, pages: 0 };
    feed(meter, at, 30, 2_500_000, 1000);
    for (let sample = 0; sample < 100; sample++) {
      meter.add(at.atMs, at.wire, at.pages, false);
      at.atMs += 100;
    }
    expect(meter.capacityBytesPerSecond).toBeGreaterThan(20_000_000);
  });

  test('is not misled by a burst of less than a third of a second', () => {
    const meter = new LinkMeter();
    meter.add(0, 0, 0);
    meter.add(1, 1_000_000, 100);
    meter.add(1000, 1_000_001, 100);
    meter.add(2000, 1_000_002, 100);
    meter.add(3000, 1_000_003, 100);
    expect(meter.capacityBytesPerSecond).toBeLessThan(2_000_000);
  });

  test('is not misled by two samples of a moment, after a long silence', () => {
    const meter = new LinkMeter();
    const at = { atMs: 0, wire: 0, pages: 0 };
    feed(meter, at, 30, 500_000, 100);
    meter.add(at.atMs + 5000, at.wire + 25_000_000, at.pages);
    meter.add(at.atMs + 5001, at.wire + 25_200_000, at.pages);
    expect(meter.bytesPerSecond).toBeLessThan(6_000_000);
    expect(meter.capacityBytesPerSecond).toBeLessThan(6_000_000);
  });

  test('says what memory costs on the wire, and never calls it free', () => {
    const half = new LinkMeter();
    feed(half, { atMs: 0, wire: 0, pages: 0 }, 12, 50 * pageBytes, 100);
    expect(half.wireBytesPerMemoryByte).toBeCloseTo(0.5, 2);
    const zeros = new LinkMeter();
    feed(zeros, { atMs: 0, wire: 0, pages: 0 }, 12, 10, 100_000);
    expect(zeros.wireBytesPerMemoryByte).toBeGreaterThan(0.1);
    const heavy = new LinkMeter();
    feed(heavy, { atMs: 0, wire: 0, pages: 0 }, 12, 10 * pageBytes, 1);
    expect(heavy.wireBytesPerMemoryByte).toBeLessThan(1.2);
  });

  test('survives samples at one and the same time', () => {
    const meter = new LinkMeter();
    for (let sample = 0; sample < 5; sample++) meter.add(100, sample * 1000, sample);
    expect(meter.bytesPerSecond).toBe(0);
    expect(Number.isFinite(meter.capacityBytesPerSecond)).toBe(true);
  });
});
