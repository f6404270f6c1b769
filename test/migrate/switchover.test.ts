import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { expectedDowntimeMs, isTimeToSwitch, type SwitchoverView } from '../../migrate/switchover.js';

const mib = 1024 * 1024;
const view: SwitchoverView = {
  remainingBytes: 0,
  backlogBytes: 0,
  linkBytesPerSecond: 25 * mib,
  rttMs: 40,
  wireBytesPerMemoryByte: 1,
  dirtySyncCount: 3,
};

describe('the expected downtime', () => {
  test('is what is left, at the speed of the link, and a round trip', () => {
    const idle = expectedDowntimeMs(view);
    // Device state alone: half a megabyte.
    expect(idle).toBeGreaterThan(40);
    expect(idle).toBeLessThan(100);
    expect(expectedDowntimeMs({ ...view, remainingBytes: 25 * mib }) - idle).toBeCloseTo(1000, 0);
    expect(expectedDowntimeMs({ ...view, backlogBytes: 50 * mib }) - idle).toBeCloseTo(2000, 0);
    expect(expectedDowntimeMs({ ...view, rttMs: 140 }) - idle).toBeCloseTo(100, 0);
  });

  test('counts memory as what it costs on the wire', () => {
    const whole = expectedDowntimeMs({ ...view, remainingBytes: 100 * mib });
    const half = expectedDowntimeMs({ ...view, remainingBytes: 100 * mib, wireBytesPerMemoryByte: 0.5 });
    expect(whole - half).toBeCloseTo(2000, 0);
  });

  test('never gets shorter with more to send or a slower link', () => {
    const amount = fc.double({ min: 0, max: 1e12, noNaN: true });
    const any = fc.record({
      remainingBytes: amount,
      backlogBytes: amount,
      linkBytesPerSecond: amount,
      rttMs: fc.double({ min: 0, max: 1e4, noNaN: true }),
      wireBytesPerMemoryByte: fc.double({ min: 0, max: 2, noNaN: true }),
      dirtySyncCount: fc.nat(10),
    });
    fc.assert(
      fc.property(any, amount, (given, more) => {
        const now = expectedDowntimeMs(given);
        expect(Number.isFinite(now)).toBe(true);
        expect(expectedDowntimeMs({ ...given, remainingBytes: given.remainingBytes + more })).toBeGreaterThanOrEqual(
          now,
        );
        expect(expectedDowntimeMs({ ...given, backlogBytes: given.backlogBytes + more })).toBeGreaterThanOrEqual(now);
        expect(
          expectedDowntimeMs({ ...given, linkBytesPerSecond: given.linkBytesPerSecond + more }),
        ).toBeLessThanOrEqual(now);
      }),
    );
  });

  test('is no promise while the link has not moved anything', () => {
    expect(expectedDowntimeMs({ ...view, linkBytesPerSecond: 0 })).toBeGreaterThan(60_000);
  });
});

describe('the time to switch over', () => {
  test('has come when the rest fits into the promised downtime', () => {
    expect(isTimeToSwitch({ ...view, remainingBytes: 5 * mib }, 300)).toBe(true);
    expect(isTimeToSwitch({ ...view, remainingBytes: 50 * mib }, 300)).toBe(false);
    expect(isTimeToSwitch({ ...view, backlogBytes: 50 * mib }, 300)).toBe(false);
  });

  test('never comes during the first pass, when nothing is known about what is left', () => {
    for (const dirtySyncCount of [0, 1]) expect(isTimeToSwitch({ ...view, dirtySyncCount }, 1e9)).toBe(false);
    expect(isTimeToSwitch({ ...view, dirtySyncCount: 2 }, 1e9)).toBe(true);
  });
});
