/** What a migration takes of the hosts and of the network between them, at most. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { setWan, wanCounters } from '../../lab/index.js';
import { peaksDuring, residentLimitBytes } from './residentMemory.js';
import { fastWan, Guest, isFull, useLab } from './rig.js';

describe.skipIf(!isFull)('A guest of 8 GiB, 3 GiB of it full', () => {
  useLab(fastWan);

  it('is moved by relays that take no more memory than was promised, whatever the link', {
    timeout: 900_000,
  }, async () => {
    const memoryMiB = 8192;
    const guest = await Guest.start('vm1', { memoryMiB, data: { contents: 'random', filesMiB: 400 } });
    await guest.run('fill-cache');
    await guest.run('pattern start 3000');
    await expect.poll(() => guest.run('pattern status'), { timeout: 300_000, interval: 2000 }).toMatch(/passes [1-9]/);
    // What it has written stays where it was.
    await guest.run('pattern stop');
    for (const link of [
      { rttMs: 1, rateBps: null },
      { rttMs: 40, rateBps: 200e6 },
    ]) {
      await setWan(link);
      const peaks = await peaksDuring(() => guest.teleport());
      expect(peaks.length).toBeGreaterThanOrEqual(2);
      console.log(`resident at ${link.rateBps ?? 'any'} bit/s: ${peaks.map((peak) => Math.round(peak / 2 ** 20))} MiB`);
      expect(Math.max(...peaks)).toBeLessThan(residentLimitBytes(memoryMiB));
    }
  });
});

describe.skipIf(!isFull)('A bandwidth', () => {
  useLab({ rttMs: 40, rateBps: 200e6 });

  it('is kept within 3 %, on the whole, and never exceeded by more for two seconds', { timeout: 300_000 }, async () => {
    const guest = await Guest.start('vm1', { memoryMiB: 512, data: { contents: 'random', filesMiB: 100 } });
    await guest.run('fill-cache');
    for (const megabits of [25, 100]) {
      const counter = guest.otherHost === 'hostA' ? 'toHostA' : 'toHostB';
      const counted: Counted[] = [];
      let isOver = false;
      const counting = (async () => {
        for (; !isOver; await sleep(200))
          counted.push({ atMs: performance.now(), bytes: (await wanCounters())[counter] });
      })();
      await guest.teleport('--bandwidth', `${megabits}mbit`, '--no-agent').finally(() => {
        isOver = true;
      });
      await counting;
      const from = counted[0]!.bytes;
      const all = counted.at(-1)!.bytes - from;
      const steady = counted.filter(({ bytes }) => bytes - from > all * 0.1 && bytes - from < all * 0.9);
      const share = (since: Counted, until: Counted) =>
        ((until.bytes - since.bytes) * 8000) / (until.atMs - since.atMs) / (megabits * 1e6);
      for (const [at, since] of steady.entries()) {
        const until = steady.slice(at).find(({ atMs }) => atMs - since.atMs >= 2000);
        if (until !== undefined) expect(share(since, until)).toBeLessThan(1.03);
      }
      expect(share(steady[0]!, steady.at(-1)!)).toBeGreaterThan(0.97);
    }
  });
});

interface Counted {
  readonly atMs: number;
  readonly bytes: number;
}
