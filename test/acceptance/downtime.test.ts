/**
 * The promises about time, as somebody in the guest sees them: how long it stands still, and when it will have moved. They
 * want a machine that does nothing else.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { setWan } from '../../lab/index.js';
import type { ProgressEvent } from '../../migrate/index.js';
import { fastWan, Guest, isFull, useLab } from './rig.js';

type Sample = Extract<ProgressEvent, { type: 'sample' }>;

const maxDowntimeMs = 300;
const rttMs = 10;
const pageBytes = 4096;
/** Of memory that is written to in turn: more than fits into the pause on the slower links. */
const dirtyMiB = 24;

const links = [
  { name: '50 Mbit/s', rateBps: 50e6 },
  { name: '200 Mbit/s', rateBps: 200e6 },
  { name: 'as fast as this machine is', rateBps: null },
] as const;
const loads = [
  { name: 'writes next to nothing', share: 0 },
  { name: 'writes 20 % of what the link takes', share: 0.2 },
  { name: 'writes 80 % of what the link takes', share: 0.8 },
] as const;

describe.runIf(isFull)('A teleported guest', () => {
  useLab(fastWan);
  let guest: Guest | null = null;
  /** What the unshaped link was seen to take. */
  let fastestBps = 1e9;

  describe.each(links)('over a link of $name', ({ rateBps }) => {
    it.each(loads)(
      'that $name stands still for --max-downtime and a round trip at most',
      async ({ share }) => {
        guest ??= await Guest.start('vm1', { memoryMiB: 256, data: { contents: 'random', filesMiB: 16, freeMiB: 16 } });
        const pagesPerSecond = Math.round(((rateBps ?? fastestBps) * share) / 8 / pageBytes);
        await guest.run(pagesPerSecond === 0 ? 'pattern stop' : `pattern start ${dirtyMiB} ${pagesPerSecond}`);
        await setWan({ rttMs, rateBps });
        // What the guest waits for here without being moved is not the move's.
        const usual = await ticking(guest, () => sleep(4_000));
        const moved = await ticking(guest, async () => {
          const { report, events } = await guest!.teleport('--max-downtime', `${maxDowntimeMs}ms`);
          expect(report.downtimeMs).toBeLessThanOrEqual(maxDowntimeMs + rttMs);
          if (rateBps === null && share === 0)
            fastestBps = Math.max(...events.filter(isSample).map((event) => event.wireBps));
          // The second in which it stood still is over only then.
          await sleep(1_500);
        });
        expect(moved.pauseMs).toBeLessThanOrEqual(maxDowntimeMs + rttMs + usual.longestMs);
        if (share > 0) expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
      },
      300_000,
    );
  });
});

describe.runIf(isFull)('Half way', () => {
  const rateBps = 50e6;
  useLab(fastWan);
  let guest: Guest | null = null;

  it.each([{ share: 0 }, { share: 0.2 }, { share: 0.4 }])(
    'it is known within 20 % when a guest that writes $share of what the link takes will have moved',
    async ({ share }) => {
      guest ??= await Guest.start('vm1', { memoryMiB: 256, data: { contents: 'random', filesMiB: 96, freeMiB: 16 } });
      await guest.run('fill-cache');
      if (share > 0) await guest.run(`pattern start ${dirtyMiB} ${Math.round((rateBps * share) / 8 / pageBytes)}`);
      await setWan({ rttMs, rateBps });
      const { report, events } = await guest.teleport('--no-agent');
      const halfMs = report.switchoverMs / 2;
      const sample = events.filter(isSample).find(({ atMs }) => atMs >= halfMs)!;
      const leftMs = report.switchoverMs - sample.atMs;
      expect(sample.etaMs! / leftMs).toBeGreaterThan(0.8);
      expect(sample.etaMs! / leftMs).toBeLessThan(1.2);
    },
    300_000,
  );
});

const isSample = (event: ProgressEvent): event is Sample => event.type === 'sample';

/** What a program in the guest that wakes up every millisecond notices meanwhile. */
async function ticking(guest: Guest, work: () => Promise<unknown>): Promise<{ longestMs: number; pauseMs: number }> {
  await guest.run('ticker start');
  await sleep(1_200);
  await work();
  const said = await guest.run('ticker status; ticker stop');
  const [, longestUs, pauseUs] = /longest_us (\d+) .*pause_us (\d+)/.exec(said)!;
  return { longestMs: Number(longestUs) / 1000, pauseMs: Number(pauseUs) / 1000 };
}
