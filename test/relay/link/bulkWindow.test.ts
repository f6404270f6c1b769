import { describe, expect, test } from 'vitest';
import { BulkWindow } from '../../../relay/link/bulkWindow.js';

interface Line {
  /** Bytes a millisecond. */
  rate: number;
  baseMs: number;
  /** Queueing by other traffic. */
  foreignMs?: number;
  /** How late an answer can be for other reasons, at random. */
  jitterMs?: number;
}

const stepMs = 0.5;
const chunkBytes = 16 * 1024;

/** A line with one bottleneck, whose queue is never full: bulk data in slices, a small frame every 10 ms. */
class Simulation {
  readonly window = new BulkWindow();
  readonly queueMs: number[] = [];
  deliveredBytes = 0;
  nowMs = 0;
  #idleAtMs = 0;
  #pingAtMs = 0;
  #random = 1;
  #arrivals: { atMs: number; bytes: number }[] = [];
  #answers: { atMs: number; sentAtMs: number }[] = [];

  /** @param offered - bytes a millisecond that there are to send; as many as the window takes otherwise */
  run(durationMs: number, line: Line, offered = Infinity): void {
    this.queueMs.length = 0;
    this.deliveredBytes = 0;
    let offeredBytes = 0;
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; this.nowMs += stepMs) {
      this.#deliver();
      if (this.nowMs >= this.#pingAtMs) this.#ping(line);
      offeredBytes += offered * stepMs;
      while (this.window.roomBytes >= 4096 && offeredBytes >= chunkBytes) {
        const bytes = Math.min(chunkBytes, this.window.roomBytes);
        if (offered !== Infinity) offeredBytes -= bytes;
        this.#idleAtMs = Math.max(this.#idleAtMs, this.nowMs) + bytes / line.rate;
        this.#arrivals.push({ atMs: this.#idleAtMs + (line.foreignMs ?? 0) + line.baseMs, bytes });
        this.window.sent(bytes);
      }
    }
  }

  queuePercentile(share: number): number {
    return this.queueMs.sort((left, right) => left - right)[Math.floor(this.queueMs.length * share)]!;
  }

  #ping(line: Line): void {
    this.#pingAtMs = this.nowMs + 10;
    const queueMs = Math.max(0, this.#idleAtMs - this.nowMs);
    this.queueMs.push(queueMs);
    const lateMs = line.baseMs + queueMs + (line.foreignMs ?? 0) + this.#jitter(line.jitterMs ?? 0);
    this.#answers.push({ atMs: this.nowMs + lateMs, sentAtMs: this.nowMs });
  }

  #deliver(): void {
    this.#arrivals = this.#arrivals.filter(({ atMs, bytes }) => {
      if (atMs > this.nowMs) return true;
      this.window.received(bytes, this.nowMs);
      this.deliveredBytes += bytes;
      return false;
    });
    this.#answers = this.#answers.filter(({ atMs, sentAtMs }) => {
      if (atMs > this.nowMs) return true;
      this.window.roundTrip(atMs - sentAtMs, this.nowMs);
      return false;
    });
  }

  /** Exponential, the same each time. */
  #jitter(meanMs: number): number {
    this.#random = (this.#random * 48271) % 0x7fffffff;
    return -meanMs * Math.log(this.#random / 0x7fffffff);
  }
}

describe('the bulk window', () => {
  test.each([
    ['25 Mbit/s, 40 ms', { rate: 3125, baseMs: 40 }],
    ['200 Mbit/s, 40 ms', { rate: 25_000, baseMs: 40 }],
    ['200 Mbit/s, 200 ms', { rate: 25_000, baseMs: 200 }],
    ['1 Gbit/s, 10 ms', { rate: 125_000, baseMs: 10 }],
    ['1 Gbit/s, 1 ms', { rate: 125_000, baseMs: 1 }],
    ['200 Mbit/s, 40 ms, and late processes', { rate: 25_000, baseMs: 40, jitterMs: 1 }],
  ])('fills a line of %s and leaves next to no queue', (_, line) => {
    const simulation = new Simulation();
    simulation.run(Math.max(4000, 40 * line.baseMs), line);
    simulation.run(10_000, line);
    expect(simulation.deliveredBytes / 10_000 / line.rate).toBeGreaterThan(0.9);
    // A slice takes 5 ms at 25 Mbit/s: less is not to be had.
    expect(simulation.queuePercentile(0.5)).toBeLessThan(Math.max(2, (2 * chunkBytes) / line.rate));
    expect(simulation.queuePercentile(0.99)).toBeLessThan(Math.max(5, line.baseMs / 20, (3 * chunkBytes) / line.rate));
  });

  test('finds the speed of the line within a dozen round trips', () => {
    const simulation = new Simulation();
    simulation.run(500, { rate: 25_000, baseMs: 40 });
    simulation.run(500, { rate: 25_000, baseMs: 40 });
    expect(simulation.deliveredBytes / 500 / 25_000).toBeGreaterThan(0.85);
  });

  test('begins with more where nothing is to overtake', () => {
    const [throughput, latency] = [new Simulation(), new Simulation()];
    throughput.window.favourThroughput();
    for (const simulation of [throughput, latency]) simulation.run(300, { rate: 25_000, baseMs: 40 });
    expect(throughput.deliveredBytes).toBeGreaterThan(2 * latency.deliveredBytes);
  });

  test('follows a line that becomes slower, and one that becomes faster', () => {
    const simulation = new Simulation();
    simulation.run(5000, { rate: 25_000, baseMs: 40 });
    simulation.run(3000, { rate: 6000, baseMs: 40 });
    simulation.run(3000, { rate: 6000, baseMs: 40 });
    expect(simulation.queuePercentile(0.5)).toBeLessThan(6);
    expect(simulation.deliveredBytes / 3000 / 6000).toBeGreaterThan(0.9);
    simulation.run(5000, { rate: 25_000, baseMs: 40 });
    simulation.run(3000, { rate: 25_000, baseMs: 40 });
    expect(simulation.deliveredBytes / 3000 / 25_000).toBeGreaterThan(0.9);
  });

  test('goes on when the way has become longer, or others fill the queue', () => {
    const simulation = new Simulation();
    simulation.run(5000, { rate: 25_000, baseMs: 40 });
    simulation.run(15_000, { rate: 25_000, baseMs: 40, foreignMs: 20 });
    simulation.run(5000, { rate: 25_000, baseMs: 40, foreignMs: 20 });
    expect(simulation.deliveredBytes / 5000 / 25_000).toBeGreaterThan(0.85);
    expect(simulation.queuePercentile(0.5)).toBeLessThan(3);
  });

  test('goes on at the best rate when the way has become much longer', () => {
    const simulation = new Simulation();
    simulation.window.favourThroughput();
    simulation.run(5000, { rate: 125_000, baseMs: 1 });
    simulation.run(30_000, { rate: 125_000, baseMs: 300 });
    simulation.run(5000, { rate: 125_000, baseMs: 300 });
    expect(simulation.deliveredBytes / 5000 / 125_000).toBeGreaterThan(0.8);
  });

  test('does not grow while it is not used up', () => {
    const simulation = new Simulation();
    simulation.run(3000, { rate: 25_000, baseMs: 40 });
    const before = simulation.window.windowBytes;
    simulation.run(10_000, { rate: 25_000, baseMs: 40 }, 5000);
    expect(simulation.window.windowBytes).toBeLessThan(before * 1.2);
  });

  test('keeps to its bounds', () => {
    const window = new BulkWindow({ minBytes: 100_000, maxBytes: 200_000 });
    expect(window.windowBytes).toBe(100_000);
    for (let round = 0; round < 1000; round++) {
      window.sent(window.roomBytes);
      window.received(window.inFlightBytes, round * 10);
      window.roundTrip(1 + round, round * 10);
      expect(window.windowBytes).toBeGreaterThanOrEqual(100_000);
      expect(window.windowBytes).toBeLessThanOrEqual(200_000);
    }
  });

  test('starts over on new connections, with nothing under way', () => {
    const window = new BulkWindow();
    window.sent(10_000);
    expect(window.roomBytes).toBe(window.windowBytes - 10_000);
    window.reset();
    expect(window.inFlightBytes).toBe(0);
    expect(window.roomBytes).toBe(window.windowBytes);
  });
});
