import { describe, expect, test } from 'vitest';
import { LinkSpeed } from '../../../relay/source/linkSpeed.js';

const frameBytes = 32 * 1024;
const dueMs = 90;

/**
 * A link that carries so much a millisecond, and a sender that keeps `windowOf(speed)` bytes from being sent to being
 * acknowledged, `laterMs` after they have arrived.
 */
function settle(
  speed: LinkSpeed,
  clock: { ms: number },
  {
    bytesPerMs,
    laterMs,
    rttMs = 40,
    forMs = 6000,
  }: { bytesPerMs: number; laterMs: number; rttMs?: number; forMs?: number },
): void {
  let idleAtMs = clock.ms;
  const arriving: number[] = [];
  const acknowledging: number[] = [];
  for (const endMs = clock.ms + forMs; clock.ms < endMs; clock.ms++) {
    while (arriving.length > 0 && arriving[0]! <= clock.ms) acknowledging.push(arriving.shift()! + laterMs);
    while (acknowledging.length > 0 && acknowledging[0]! <= clock.ms) acknowledging.shift();
    const windowBytes = Math.max(128 * 1024, speed.bytesPerMs * dueMs);
    while ((arriving.length + acknowledging.length) * frameBytes < windowBytes) {
      speed.sent(frameBytes);
      idleAtMs = Math.max(idleAtMs, clock.ms) + frameBytes / bytesPerMs;
      // Half of the round trip is the receipt's.
      arriving.push(idleAtMs + rttMs);
    }
    speed.heldBack();
    speed.received(arriving.length * frameBytes, dueMs);
  }
}

function newSpeed(): { speed: LinkSpeed; clock: { ms: number } } {
  const clock = { ms: 0 };
  return { speed: new LinkSpeed(() => clock.ms), clock };
}

describe('the speed of a link', () => {
  test('is found, however little was sent at first', () => {
    const { speed, clock } = newSpeed();
    settle(speed, clock, { bytesPerMs: 25_000, laterMs: 0 });
    expect(speed.bytesPerMs).toBeGreaterThan(25_000 * 0.8);
    expect(speed.bytesPerMs).toBeLessThan(25_000 * 1.5);
  });

  test('is not thought less of because a destination takes its time', () => {
    const { speed, clock } = newSpeed();
    settle(speed, clock, { bytesPerMs: 25_000, laterMs: 70 });
    expect(speed.bytesPerMs).toBeGreaterThan(25_000 * 0.8);
  });

  test('is noticed to have become less, and more again', () => {
    const { speed, clock } = newSpeed();
    settle(speed, clock, { bytesPerMs: 25_000, laterMs: 5 });
    settle(speed, clock, { bytesPerMs: 2_500, laterMs: 5 });
    expect(speed.bytesPerMs).toBeLessThan(2_500 * 1.5);
    settle(speed, clock, { bytesPerMs: 25_000, laterMs: 5 });
    expect(speed.bytesPerMs).toBeGreaterThan(25_000 * 0.8);
  });

  test('is not known from times in which little was sent', () => {
    const { speed, clock } = newSpeed();
    settle(speed, clock, { bytesPerMs: 25_000, laterMs: 5 });
    const known = speed.bytesPerMs;
    for (let round = 0; round < 200; round++) {
      speed.sent(1000);
      clock.ms += 100;
      speed.received(0, dueMs);
    }
    expect(speed.bytesPerMs).toBe(known);
  });
});
