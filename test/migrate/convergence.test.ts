import { describe, expect, test } from 'vitest';
import { Convergence, type Verdict } from '../../migrate/convergence.js';

const takesBytesPerSecond = 6e6;

interface Writer {
  /** Bytes that it writes each second, of so many that it writes in turn. */
  readonly writes: number;
  readonly over: number;
  /** What may be left when it is stopped. */
  readonly fits: number;
  readonly passes: number;
}

/** Pre-copy of a guest that goes through its memory again and again; the first pass takes ten seconds. */
function precopy({ writes, over, fits, passes }: Writer): { verdict: Verdict | null; fitted: boolean } {
  const convergence = new Convergence();
  let atMs = 10_000;
  let remainingBytes = Math.min(over, writes * 10);
  for (let dirtySyncCount = 2; dirtySyncCount < passes + 2; dirtySyncCount++) {
    const passMs = (remainingBytes / takesBytesPerSecond) * 1000;
    const dirtyBytesPerSecond = Math.min(writes, over / Math.max(0.001, passMs / 1000));
    // The pass goes on for some samples, in which less and less is left.
    for (const left of [1, 0.6, 0.2]) {
      const view = { atMs, dirtySyncCount, remainingBytes: remainingBytes * left, dirtyBytesPerSecond };
      const isFit = remainingBytes * left <= fits;
      const verdict = convergence.add({ ...view, takesBytesPerSecond, fits: isFit });
      if (verdict !== null) return { verdict, fitted: false };
      // QEMU decides when it has looked, which is when a pass begins.
      if (isFit && left === 1) return { verdict: null, fitted: true };
      atMs += passMs / 3;
    }
    remainingBytes = Math.min(over, (writes * passMs) / 1000);
  }
  return { verdict: null, fitted: false };
}

describe('convergence', () => {
  test('is seen not to come after three passes, of a guest that writes faster than the link takes', () => {
    for (const writes of [7e6, 12e6, 100e6]) {
      const { verdict } = precopy({ writes, over: 60e6, fits: 1e6, passes: 100 });
      expect(verdict).not.toBeNull();
      expect(verdict!.passes).toBeLessThanOrEqual(3);
      expect(verdict!.remainingBytes).toBeCloseTo(60e6, -3);
      expect(verdict!.takesBytesPerSecond).toBe(takesBytesPerSecond);
    }
  });

  test('is not taken for near because little is left of each pass at its end', () => {
    const { verdict } = precopy({ writes: 12e6, over: 60e6, fits: 13e6, passes: 100 });
    expect(verdict!.passes).toBeLessThanOrEqual(3);
  });

  test('is waited for where each pass leaves less, up to nine tenths of what the link takes', () => {
    for (const share of [0, 0.2, 0.5, 0.8, 0.9]) {
      const result = precopy({ writes: share * takesBytesPerSecond, over: 200e6, fits: 1e6, passes: 100 });
      expect(result).toEqual({ verdict: null, fitted: true });
    }
  });

  test('needs none of a guest that keeps writing to little memory', () => {
    expect(precopy({ writes: 100e6, over: 0.9e6, fits: 1e6, passes: 100 })).toEqual({ verdict: null, fitted: true });
  });

  test('is not despaired of for what happens in some seconds, where passes are short', () => {
    const convergence = new Convergence();
    const view = { takesBytesPerSecond, dirtyBytesPerSecond: 1e6, remainingBytes: 2e6, fits: false };
    let told = null;
    let atMs = 10_000;
    let dirtySyncCount = 2;
    for (; atMs < 17_000; atMs += 100) told ??= convergence.add({ ...view, atMs, dirtySyncCount: dirtySyncCount++ });
    expect(told).toBeNull();
    // Whenever it could have been stopped, the wait begins anew.
    convergence.add({ ...view, fits: true, atMs, dirtySyncCount: dirtySyncCount++ });
    for (; atMs < 24_000; atMs += 100) told ??= convergence.add({ ...view, atMs, dirtySyncCount: dirtySyncCount++ });
    expect(told).toBeNull();
    for (; atMs < 28_000; atMs += 100) told ??= convergence.add({ ...view, atMs, dirtySyncCount: dirtySyncCount++ });
    expect(told).not.toBeNull();
  });

  test('is not taken for near while QEMU looks for what is dirty, and tells what was left before', () => {
    const convergence = new Convergence();
    const view = { takesBytesPerSecond, dirtyBytesPerSecond: 9e6 };
    let told: Verdict | null = null;
    let passes = 0;
    for (let dirtySyncCount = 2; told === null && passes < 10; dirtySyncCount++, passes++)
      for (const [step, [remainingBytes, fits]] of (
        [
          [0.1e6, true],
          [0.1e6, true],
          [6e6, false],
          [3e6, false],
        ] as const
      ).entries())
        told ??= convergence.add({
          ...view,
          remainingBytes,
          fits,
          dirtySyncCount,
          atMs: dirtySyncCount * 1100 + step * 50,
        });
    expect(told).toMatchObject({ remainingBytes: 6e6 });
    expect(passes).toBeLessThanOrEqual(3);
  });

  test('is despaired of where every other second is better than the one before', () => {
    const convergence = new Convergence();
    const view = { takesBytesPerSecond, dirtyBytesPerSecond: 5e6, fits: false };
    let told: Verdict | null = null;
    let dirtySyncCount = 2;
    for (; told === null && dirtySyncCount < 100; dirtySyncCount++) {
      const remainingBytes = dirtySyncCount % 2 === 0 ? 10e6 : 8e6;
      told = convergence.add({ ...view, remainingBytes, dirtySyncCount, atMs: dirtySyncCount * 1000 });
    }
    expect(told?.passes).toBeLessThanOrEqual(16);
  });

  test('is judged anew after something was done about it', () => {
    const convergence = new Convergence();
    const stuck = { takesBytesPerSecond, dirtyBytesPerSecond: 9e6, remainingBytes: 60e6, fits: false };
    const verdicts: number[] = [];
    for (let pass = 2; pass < 12; pass++) {
      const begun = { ...stuck, atMs: pass * 10_000, dirtySyncCount: pass };
      if (convergence.add(begun) !== null) throw new Error('too early');
      if (convergence.add({ ...begun, remainingBytes: 50e6 }) === null) continue;
      verdicts.push(pass);
      convergence.reset();
    }
    expect(verdicts).toEqual([4, 7, 10]);
  });
});
