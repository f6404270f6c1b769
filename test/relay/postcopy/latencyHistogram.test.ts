import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../../../relay/destination/postcopy/latencyHistogram.js';

describe('a histogram of latencies', () => {
  it('knows every percentile to some five percent, and the longest exactly', () => {
    const latencies = fc.array(fc.double({ min: 0.001, max: 3_600_000, noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(latencies, fc.double({ min: 0.001, max: 1, noNaN: true }), (all, share) => {
        const histogram = new LatencyHistogram();
        for (const each of all) histogram.add(each);
        const sorted = all.toSorted((a, b) => a - b);
        const exact = sorted[Math.ceil(share * all.length) - 1]!;
        expect(histogram.percentileMs(share) / exact).toBeGreaterThan(0.95);
        expect(histogram.percentileMs(share) / exact).toBeLessThan(1.05);
        expect(histogram.maxMs).toBe(sorted.at(-1));
        expect(histogram.count).toBe(all.length);
      }),
    );
  });

  it('says nothing of nothing', () => {
    const histogram = new LatencyHistogram();
    expect([histogram.percentileMs(0.5), histogram.maxMs, histogram.count]).toEqual([0, 0, 0]);
  });

  it('takes what is out of its range for the shortest or the longest', () => {
    const histogram = new LatencyHistogram();
    for (const latencyMs of [0, 1e12]) histogram.add(latencyMs);
    expect(histogram.percentileMs(0.5)).toBeLessThan(0.002);
    expect(histogram.maxMs).toBe(1e12);
  });
});
