import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { maxRetainedBytes, type ReferredRun, SendWindow } from '../../../relay/source/window.js';

const nothing: ReadonlyMap<number, ReferredRun> = new Map();

function runOf(lengthBytes: number, page = 0): ReferredRun {
  return { block: 0, page, count: 1, bytes: Buffer.allocUnsafeSlow(lengthBytes), digest: Buffer.alloc(16, page) };
}

/** A link of so many bytes a millisecond, one round trip long, over which a window sends as much as it may. */
class Line {
  readonly window = new SendWindow();
  smallestMs = Infinity;
  #ms = 0;
  #idleAtMs = 0;
  #sequence = 0;
  #underWay: { readonly sequence: number; readonly atMs: number }[] = [];
  readonly #pings: { readonly sentAtMs: number; readonly atMs: number }[] = [];
  #recent: number[] = [];

  constructor() {
    vi.spyOn(performance, 'now').mockImplementation(() => this.#ms);
  }

  /** @returns the share of the link that was used in the second half of that time */
  run(forMs: number, { bytesPerMs, rttMs }: { readonly bytesPerMs: number; readonly rttMs: number }): number {
    let sent = 0;
    const startMs = this.#ms;
    for (; this.#ms < startMs + forMs; this.#ms++) {
      while (this.window.isOpen) {
        this.window.add(this.#sequence, frameBytes, nothing);
        this.#idleAtMs = Math.max(this.#idleAtMs, this.#ms) + frameBytes / bytesPerMs;
        this.#underWay.push({ sequence: this.#sequence++, atMs: this.#idleAtMs + rttMs });
        if (this.#ms > startMs + forMs / 2) sent += frameBytes;
      }
      if (this.#ms % 500 === 0)
        this.#pings.push({ sentAtMs: this.#ms, atMs: Math.max(this.#idleAtMs, this.#ms) + rttMs });
      this.#arrive();
    }
    return sent / (bytesPerMs * (forMs / 2));
  }

  /** What queues on the way. */
  get queueMs(): number {
    return this.#idleAtMs - this.#ms;
  }

  #arrive(): void {
    while (this.#pings.length > 0 && this.#pings[0]!.atMs <= this.#ms) {
      const { sentAtMs, atMs } = this.#pings.shift()!;
      this.#recent = [...this.#recent.slice(-3), atMs - sentAtMs];
      this.smallestMs = Math.min(this.smallestMs, atMs - sentAtMs);
    }
    const here = this.#underWay.filter(({ atMs }) => atMs <= this.#ms);
    if (here.length === 0 || this.#recent.length === 0) return;
    this.#underWay = this.#underWay.slice(here.length);
    for (const { sequence } of here) this.window.acknowledge(sequence);
    const recent = Math.min(...this.#recent);
    if (this.window.received(this.#underWay.length * frameBytes, { smallest: this.smallestMs, recent }))
      this.smallestMs = recent;
  }
}

const frameBytes = 32 * 1024;

describe('the window on a link', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  test.each([
    ['1 Gbit/s', 125_000],
    ['50 Mbit/s', 6_250],
  ])('of %s fills it, and again when the way has become much longer', (_, bytesPerMs) => {
    const line = new Line();
    expect(line.run(6_000, { bytesPerMs, rttMs: 1 })).toBeGreaterThan(0.8);
    line.run(30_000, { bytesPerMs, rttMs: 300 });
    expect(line.run(10_000, { bytesPerMs, rttMs: 300 })).toBeGreaterThan(0.8);
    expect(line.smallestMs).toBeGreaterThan(100);
  });

  test('that becomes slow does not take its queue for a longer way, and lets none stand for long', () => {
    const line = new Line();
    line.run(6_000, { bytesPerMs: 125_000, rttMs: 40 });
    line.run(20_000, { bytesPerMs: 2_500, rttMs: 40 });
    expect(line.run(10_000, { bytesPerMs: 2_500, rttMs: 40 })).toBeGreaterThan(0.8);
    expect(line.smallestMs).toBeLessThan(45);
    expect(line.queueMs).toBeLessThan(100);
  });
});

describe('the window', () => {
  test('closes when enough is under way and opens again with acknowledgements', () => {
    const window = new SendWindow();
    expect(window.isEmpty).toBe(true);
    let sequence = 0;
    while (window.isOpen) window.add(sequence++, 64 * 1024, nothing);
    // Before anything is known about the link: four megabytes.
    expect(window.frameBytes).toBeLessThanOrEqual(4 * 1024 * 1024 + 64 * 1024);
    expect(window.acknowledge(0)).toBeTruthy();
    expect(window.isOpen).toBe(true);
    for (let at = 1; at < sequence; at++) window.acknowledge(at);
    expect(window.isEmpty).toBe(true);
    expect(window.frameBytes).toBe(0);
  });

  test('is bounded by what it keeps, too, however little is on the link', () => {
    const window = new SendWindow();
    window.runsAhead = true;
    let kept = 0;
    for (let sequence = 0; window.isOpen; sequence++) {
      window.add(sequence, 40, new Map([[0, runOf(2 ** 20)]]));
      kept += 2 ** 20;
    }
    expect(kept).toBeLessThanOrEqual(maxRetainedBytes + 2 ** 20);
    window.acknowledge(0);
    expect(window.isOpen).toBe(true);
  });

  test('keeps no run of the first pass that the destination has found by itself, unless it was asked for', () => {
    const window = new SendWindow();
    window.isFirstPass = true;
    const [first, second, third] = [runOf(4096, 7), runOf(4096, 8), runOf(4096, 9)] as const;
    window.add(
      0,
      40,
      new Map([
        [0, first],
        [1, second],
      ]),
    );
    expect(window.release({ ...first, digest: second.digest })).toBe(null);
    expect(window.release(first)).toBe(first);
    expect(window.release(first)).toBe(null);
    expect(window.takeForResend(0, 0)).toBe(null);
    expect(window.takeForResend(0, 1)).toBe(second);
    expect(window.release(second)).toBe(null);
    expect([...window.acknowledge(0)!]).toEqual([second]);
    expect(window.release(second)).toBe(null);
    // From then on a page may come again before its reference does.
    window.isFirstPass = false;
    window.add(1, 40, new Map([[0, third]]));
    expect(window.release(third)).toBe(null);
  });

  test('opens when the destination has found enough by itself', () => {
    const window = new SendWindow();
    window.isFirstPass = true;
    let sequence = 0;
    while (window.isOpen) {
      window.add(sequence, 40, new Map([[0, runOf(2 ** 20, sequence % 256)]]));
      sequence++;
    }
    expect(window.release(runOf(2 ** 20, 3))).not.toBe(null);
    expect(window.isOpen).toBe(true);
  });

  test('follows a model: what is under way, and which runs can be asked for again', () => {
    const step = fc.oneof(
      fc.record({
        add: fc.constant(true),
        bytes: fc.nat(100_000),
        records: fc.uniqueArray(fc.nat(40), { maxLength: 3 }),
      }),
      fc.record({ add: fc.constant(false), sequence: fc.nat(40) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const window = new SendWindow();
        const model = new Map<number, { bytes: number; runs: Map<number, ReferredRun> }>();
        let next = 0;
        let sentBytes = 0;
        for (const each of steps) {
          if ('bytes' in each) {
            sentBytes += each.bytes;
            const runs = new Map(each.records.map((record) => [record, runOf(4096)]));
            window.add(next, each.bytes, runs);
            model.set(next++, { bytes: each.bytes, runs });
          } else {
            const wasUnderWay = model.delete(each.sequence);
            expect(Boolean(window.acknowledge(each.sequence))).toBe(wasUnderWay);
          }
          expect(window.frameBytes).toBe([...model.values()].reduce((sum, { bytes }) => sum + bytes, 0));
          expect(window.allFramesBytes).toBe(sentBytes);
          expect(window.isEmpty).toBe(model.size === 0);
          for (let sequence = 0; sequence <= next; sequence++)
            for (const record of [0, 7, 40]) {
              expect(window.takeForResend(sequence, record)).toBe(model.get(sequence)?.runs.get(record) ?? null);
              model.get(sequence)?.runs.delete(record); // a second time it is nobody's
            }
        }
      }),
      { numRuns: 100 },
    );
  });

  test('follows the speed of the link, within bounds', async () => {
    /** Sends as much as the window lets through, and has it acknowledged at a speed. */
    async function settled(bytesPerMs: number): Promise<number> {
      const window = new SendWindow();
      let [sent, acknowledged] = [0, 0];
      let most = 0;
      for (let round = 0; round < 30; round++) {
        while (window.isOpen) window.add(sent++, 64 * 1024, nothing);
        most = window.frameBytes;
        await new Promise((resolve) => setTimeout(resolve, 10));
        for (let left = bytesPerMs * 10; left > 0 && acknowledged < sent; left -= 64 * 1024)
          window.acknowledge(acknowledged++);
        window.received(window.frameBytes, { smallest: 1, recent: 1 });
      }
      return most;
    }
    const [slow, fast] = await Promise.all([settled(7_000), settled(600_000)]);
    expect(fast).toBeGreaterThan(2 * slow);
    expect(fast).toBeLessThanOrEqual(49 * 1024 * 1024);
    expect(slow).toBeGreaterThanOrEqual(128 * 1024);
  });

  test('runs ahead while QEMU is sure not to stop the guest, and then not before that has gone', () => {
    const window = new SendWindow();
    const filled = () => {
      for (let sequence = window.frameBytes; window.isOpen; sequence += 64 * 1024)
        window.add(sequence, 64 * 1024, nothing);
      return window.frameBytes;
    };
    expect(filled()).toBe(4 * 1024 * 1024);
    window.runsAhead = true;
    expect(filled()).toBe(32 * 1024 * 1024);
    window.runsAhead = false;
    for (let sequence = 0; !window.isOpen; sequence += 64 * 1024) window.acknowledge(sequence);
    expect(window.frameBytes).toBe(4 * 1024 * 1024 - 64 * 1024);
  });

  test('keeps less for references once the guest may be stopped', () => {
    const window = new SendWindow();
    let keptBytes = 0;
    const kept = () => {
      for (; window.isOpen; keptBytes += 2 ** 20) window.add(keptBytes, 40, new Map([[0, runOf(2 ** 20)]]));
      return keptBytes;
    };
    expect(kept()).toBe(32 * 2 ** 20);
    window.runsAhead = true;
    expect(kept()).toBe(maxRetainedBytes);
  });
});
