/** A guest that writes to its memory faster than the link takes it: that is told early, and what then happens is the operator's. */
import { afterEach, describe, expect, it } from 'vitest';
import { setWan, type WanSettings } from '../../lab/index.js';
import type { ProgressEvent } from '../../migrate/index.js';
import { expectNothingLeft, fastWan, Guest, isFull, type MoveOutcome, type Outcome, useLab } from './rig.js';

/** As fast as it can, over more memory than fits into any pause that is allowed here. */
const writes = 'pattern start 12';
const slowWan = { rttMs: 10, rateBps: 30e6 } as const;
/** Too slow for it, too, and a first pass is over sooner. */
const fasterWan = { rttMs: 10, rateBps: 45e6 } as const;

describe('A guest that writes faster than the link takes', () => {
  useLab(fastWan);
  let guest: Guest | null = null;

  async function busyGuest(wan: Partial<WanSettings> = slowWan): Promise<Guest> {
    guest ??= await Guest.start('vm1', { memoryMiB: 160, data: { contents: 'random', filesMiB: 8, freeMiB: 8 } });
    await guest.run(writes);
    await setWan(wan);
    return guest;
  }

  afterEach(() => setWan(fastWan));

  it('stays where it is, told with the numbers after a few passes', { timeout: 180_000 }, async () => {
    const busy = await busyGuest(fasterWan);
    const counted = await busy.count();
    const outcome = await busy.begin('--max-downtime', '600ms').ended;
    expect(outcome.exitCode, outcome.stderr).toBe(1);
    const { report } = outcome;
    expect(report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_NO_CONVERGE' } });
    expect(report.error!.retryable).toBe(true);
    expect(report.error!.message).toMatch(
      /each second [\d.]+ MB .* \(\d+ Mbit\/s\)\. After [2-6] passes [\d.]+ MB are left/,
    );
    expect(report.error!.message).toMatch(/What would help: --max-downtime \d+s, a link of [\d.]+ Mbit\/s or more/);
    await busy.expectToRun(counted);
    await expectIntact(busy);
    await expectNothingLeft([busy]);
  });

  it.runIf(isFull)('is slowed down until it has moved: throttle', { timeout: 400_000 }, async () => {
    const busy = await busyGuest();
    const { report, events } = await move(busy, 'throttle');
    const throttled = events.flatMap((event) => (event.type === 'sample' ? (event.throttlePercent ?? 0) : []));
    const toldAt = events.findIndex(isNotice);
    expect(Math.max(...throttled)).toBeGreaterThanOrEqual(30);
    // Not before it has been told.
    for (const event of events.slice(0, toldAt))
      if (event.type === 'sample') expect(event.throttlePercent ?? 0).toBeLessThanOrEqual(1);
    expect(report.downtimeMs).toBeGreaterThan(0);
    await expectIntact(busy);
    await expectNothingLeft([busy]);
  });

  it.runIf(isFull)('is stopped for as long as it takes: stop-and-copy', { timeout: 400_000 }, async () => {
    const busy = await busyGuest();
    const { report, events } = await move(busy, 'stop-and-copy');
    const [, told] = /stand still for ([\d.]+) s/.exec(events.find(isNotice)!.message)!;
    expect(report.downtimeMs).toBeGreaterThan(500);
    // As it was told beforehand.
    expect(report.downtimeMs).toBeLessThan(Number(told) * 1000 * 1.5);
    await expectIntact(busy);
    await expectNothingLeft([busy]);
  });

  it.runIf(isFull)('runs on the destination before its memory is there: switch', { timeout: 400_000 }, async () => {
    const busy = await busyGuest();
    const { report, events } = await move(busy, 'switch');
    expect(report.mode).toBe('switch');
    expect(events.filter(({ type }) => type === 'start')).toMatchObject([{ mode: 'teleport' }, { mode: 'switch' }]);
    expect(events.filter(({ type }) => type === 'end')).toHaveLength(1);
    await expectIntact(busy);
    await expectNothingLeft([busy]);
  });
});

const isNotice = (event: ProgressEvent): event is Extract<ProgressEvent, { type: 'notice' }> =>
  event.type === 'notice' && event.code === 'VMMIG_NO_CONVERGE';

async function move(guest: Guest, policy: string): Promise<MoveOutcome | Outcome> {
  const outcome = await guest.teleport('--on-no-converge', policy);
  expect(outcome.events.filter(isNotice)).toHaveLength(1);
  return outcome;
}

/** Not one stale page. */
async function expectIntact(guest: Guest): Promise<void> {
  await setWan(fastWan);
  expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
  await guest.run('pattern stop');
}
