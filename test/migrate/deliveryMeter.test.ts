import { describe, expect, test } from 'vitest';
import { DeliveryMeter } from '../../migrate/deliveryMeter.js';

const mib = 1024 * 1024;
const plenty = 8 * mib;

/** Five samples a second. @returns where it ends */
function feed(meter: DeliveryMeter, from: { atMs: number; bytes: number }, seconds: number, bytesPerSecond: number) {
  for (let sample = 0; sample < seconds * 5; sample++) {
    meter.add(from.atMs, from.bytes, plenty);
    from.atMs += 200;
    from.bytes += bytesPerSecond / 5;
  }
  meter.add(from.atMs, from.bytes, plenty);
  return from;
}

describe('the speed at which memory arrives', () => {
  test('is what it was over some seconds', () => {
    const meter = new DeliveryMeter();
    const at = feed(meter, { atMs: 123_456, bytes: 7 * mib }, 3, 5 * mib);
    expect(meter.bytesPerSecond).toBeCloseTo(5 * mib, -2);
    feed(meter, at, 10, mib);
    expect(meter.bytesPerSecond).toBeCloseTo(mib, -2);
  });

  test('is not known from the first moments, nor from greetings', () => {
    const meter = new DeliveryMeter();
    expect(meter.bytesPerSecond).toBeNull();
    feed(meter, { atMs: 0, bytes: 0 }, 0.4, 5 * mib);
    expect(meter.bytesPerSecond).toBeNull();
    const quiet = new DeliveryMeter();
    feed(quiet, { atMs: 0, bytes: 0 }, 5, 1000);
    expect(quiet.bytesPerSecond).toBeNull();
  });

  test('is not lowered by a link that has nothing to do, or is cut', () => {
    const meter = new DeliveryMeter();
    const at = feed(meter, { atMs: 0, bytes: 0 }, 3, 5 * mib);
    for (let sample = 0; sample < 50; sample++) {
      at.atMs += 200;
      meter.add(at.atMs, at.bytes, 0);
    }
    feed(meter, at, 1, 5 * mib);
    expect(meter.bytesPerSecond).toBeCloseTo(5 * mib, -2);
  });

  test('counts a sample that is told again once', () => {
    const meter = new DeliveryMeter();
    for (let atMs = 0; atMs <= 2000; atMs += 50)
      meter.add(Math.floor(atMs / 200) * 200, Math.floor(atMs / 200) * mib, plenty);
    expect(meter.bytesPerSecond).toBeCloseTo(5 * mib, -2);
  });

  test('survives a destination whose clock and count begin again', () => {
    const meter = new DeliveryMeter();
    feed(meter, { atMs: 100_000, bytes: 500 * mib }, 2, 5 * mib);
    feed(meter, { atMs: 300, bytes: 0 }, 1, 5 * mib);
    expect(meter.bytesPerSecond).toBeCloseTo(5 * mib, -2);
  });
});
