import { describe, expect, it } from 'vitest';
import { checkExposure, expectedExposureMs } from '../../migrate/exposure.js';

/** 400 MB of pages left on a link that takes 25 MB a second; nothing is known yet of how well they compress. */
const view = { leftPages: 100_000, sentPages: 0, wireBytes: 0, linkBytesPerSecond: 25e6 };

describe('The exposure that a switch would bring', () => {
  it('is the time that the link needs for what is left', () => {
    expect(expectedExposureMs(view)).toBeCloseTo((100_000 * 4096 * 1.05 * 1000) / 25e6, -1);
  });

  it('counts on memory compressing as it has so far, and on nothing better than that', () => {
    expect(expectedExposureMs({ ...view, sentPages: 1000, wireBytes: 1000 * 1024 })).toBeCloseTo(4096, 0);
    expect(expectedExposureMs({ ...view, sentPages: 1000, wireBytes: 1e9 })).toBe(expectedExposureMs(view));
  });

  it('is nothing when nothing is left, whatever the link takes', () => {
    expect(expectedExposureMs({ ...view, leftPages: 0, linkBytesPerSecond: 0 })).toBe(0);
  });

  it('is finite on a link that has not taken anything', () => {
    expect(Number.isFinite(expectedExposureMs({ ...view, linkBytesPerSecond: 0 }))).toBe(true);
  });

  it('refuses the switch when it is longer than allowed, and says by how much', () => {
    expect(() => checkExposure(view, 20_000)).not.toThrow();
    expect(() => checkExposure(view, 10_000)).toThrow(
      expect.objectContaining({ code: 'VMMIG_EXPOSURE', vmLocation: 'source' }),
    );
    expect(() => checkExposure(view, 10_000)).toThrow(/410 MB .* 200 Mbit\/s would take 18 s; 10 s are allowed/);
  });
});
