import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rescans } from '../../migrate/rescans.js';

const later = { dirtySyncCount: 3, remainingBytes: 64 * 1024 * 1024 };

describe('The agent is asked again', () => {
  test('after the first pass, two seconds after it was asked last, when enough is left to be saved', () => {
    const rescans = new Rescans(500);
    expect(rescans.isDue(2_499, later)).toBe(false);
    expect(rescans.isDue(2_500, later)).toBe(true);
    expect(rescans.isDue(2_500, { ...later, dirtySyncCount: 1 })).toBe(false);
    expect(rescans.isDue(2_500, { ...later, remainingBytes: 1024 * 1024 })).toBe(false);
  });

  test('not while it scans, and later the longer it takes', () => {
    const rescans = new Rescans(0);
    rescans.began(2_000);
    expect(rescans.isDue(60_000, later)).toBe(false);
    rescans.ended(12_000);
    expect(rescans.isDue(12_000 + 39_999, later)).toBe(false);
    expect(rescans.isDue(12_000 + 40_000, later)).toBe(true);
  });
});

describe('An agent that scans', () => {
  test('holds up the stop for a second', () => {
    const rescans = new Rescans(0);
    expect(rescans.holdsUp(2_000)).toBe(false);
    rescans.began(2_000);
    expect(rescans.holdsUp(2_999)).toBe(true);
    expect(rescans.holdsUp(3_000)).toBe(false);
    expect(rescans.holdsUp(60_000)).toBe(false);
  });

  test('no longer once it has answered', () => {
    const rescans = new Rescans(0);
    rescans.began(2_000);
    rescans.ended(2_100);
    expect(rescans.holdsUp(2_100)).toBe(false);
  });

  test('holds it up for a second at a time and a third of the time in all, however slow it is', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 20 }), (durationsMs) => {
        const rescans = new Rescans(0);
        const stepMs = 50;
        let heldMs = 0;
        let heldInARowMs = 0;
        let longestMs = 0;
        let endsAtMs = Number.POSITIVE_INFINITY;
        let scans = 0;
        let atMs = 0;
        for (; scans < durationsMs.length || endsAtMs !== Number.POSITIVE_INFINITY; atMs += stepMs) {
          if (atMs >= endsAtMs) {
            rescans.ended(atMs);
            endsAtMs = Number.POSITIVE_INFINITY;
          }
          if (scans < durationsMs.length && rescans.isDue(atMs, later)) {
            rescans.began(atMs);
            endsAtMs = atMs + durationsMs[scans++]!;
          }
          const isHeld = rescans.holdsUp(atMs);
          heldMs += isHeld ? stepMs : 0;
          heldInARowMs = isHeld ? heldInARowMs + stepMs : 0;
          longestMs = Math.max(longestMs, heldInARowMs);
        }
        expect(longestMs).toBeLessThanOrEqual(1_000);
        expect(heldMs).toBeLessThanOrEqual(atMs / 3);
      }),
      { numRuns: 50 },
    );
  });
});
