import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { expectedDowntimeMs, isTimeToSwitch, memoryBudgetMs, type SwitchoverView } from '../../migrate/switchover.js';

const mib = 1024 * 1024;
const view: SwitchoverView = {
  remainingBytes: 0,
  backlogBytes: 0,
  linkBytesPerSecond: 25 * mib,
  rttMs: 40,
  wireBytesPerMemoryByte: 1,
  dirtySyncCount: 3,
  fixedMs: 100,
};

describe('the expected downtime', () => {
  test('is what is left, at the speed of the link with a margin, and what a stop takes anyway', () => {
    const idle = expectedDowntimeMs(view);
    // Device state alone: little once it is packed.
    expect(idle).toBeGreaterThan(100);
    expect(idle).toBeLessThan(110);
    const second = expectedDowntimeMs({ ...view, remainingBytes: 25 * mib }) - idle;
    expect(second).toBeGreaterThan(1000);
    expect(second).toBeLessThan(1250);
    // A round trip's worth of what is under way has arrived, or is on its way anyhow.
    expect(expectedDowntimeMs({ ...view, backlogBytes: 50 * mib }) - idle).toBeCloseTo(2 * second - view.rttMs, 0);
    expect(expectedDowntimeMs({ ...view, backlogBytes: mib / 2 })).toBe(idle);
    expect(expectedDowntimeMs({ ...view, fixedMs: 200 }) - idle).toBeCloseTo(100, 0);
  });

  test('counts memory as what it costs on the wire', () => {
    const whole = expectedDowntimeMs({ ...view, remainingBytes: 100 * mib });
    const half = expectedDowntimeMs({ ...view, remainingBytes: 100 * mib, wireBytesPerMemoryByte: 0.5 });
    const nothing = expectedDowntimeMs(view);
    expect(whole - half).toBeCloseTo(half - nothing, 0);
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
      fixedMs: fc.double({ min: 0, max: 1e4, noNaN: true }),
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

describe('what QEMU may take for its part', () => {
  test('is the promise and a round trip, less a margin and what else the guest waits for', () => {
    const budget = memoryBudgetMs(view, 300);
    expect(budget).toBeCloseTo(340 - 45 - expectedDowntimeMs(view), 5);
    const behind = memoryBudgetMs({ ...view, backlogBytes: 2 * mib }, 300);
    expect(budget - behind).toBeCloseTo(expectedDowntimeMs({ ...view, backlogBytes: 2 * mib }) - 295 + budget, 5);
    // What is dirty is what it is for.
    expect(memoryBudgetMs({ ...view, remainingBytes: 500 * mib }, 300)).toBe(budget);
  });

  test('is little, and no margin, where the promise can just be kept', () => {
    expect(memoryBudgetMs({ ...view, fixedMs: 300 }, 300)).toBe(5);
  });

  test('is nothing where the promise cannot be kept', () => {
    expect(memoryBudgetMs({ ...view, fixedMs: 400 }, 300)).toBe(0);
    expect(memoryBudgetMs({ ...view, backlogBytes: 50 * mib }, 300)).toBe(0);
    expect(isTimeToSwitch({ ...view, fixedMs: 400 }, 300)).toBe(false);
  });
});

describe('the time to switch over', () => {
  test('has come when the rest fits into the promised downtime', () => {
    expect(isTimeToSwitch({ ...view, remainingBytes: 4 * mib }, 300)).toBe(true);
    expect(isTimeToSwitch({ ...view, remainingBytes: 50 * mib }, 300)).toBe(false);
    expect(isTimeToSwitch({ ...view, backlogBytes: 50 * mib }, 300)).toBe(false);
  });

  test('never comes during the first pass, when nothing is known about what is left', () => {
    for (const dirtySyncCount of [0, 1]) expect(isTimeToSwitch({ ...view, dirtySyncCount }, 1e9)).toBe(false);
    expect(isTimeToSwitch({ ...view, dirtySyncCount: 2 }, 1e9)).toBe(true);
  });
});
