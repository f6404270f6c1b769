/** A network that is cut for a while during a teleport only holds it up; a guest that has stopped does not wait for long. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { cutWan, healWan, labExec, setWan } from '../../lab/index.js';
import { expectNothingLeft, fastWan, Guest, isFull, type Move, useLab } from './rig.js';

const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
const lengthsMs = [1_000, 10_000, 30_000];

describe('A teleport whose network is cut', () => {
  let guest: Guest;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 160, data: { contents: 'random', filesMiB: 32, freeMiB: 16 } });
    await guest.run('fill-cache');
  });

  afterEach(async () => {
    await healWan();
    await setWan(fastWan);
  });

  async function beginSlowly(...more: string[]): Promise<Move> {
    await setWan(slowWan);
    return guest.begin('--no-agent', ...more);
  }

  /** Until every page has been sent once. */
  async function untilLaterPass(move: Move): Promise<void> {
    await move.until((event) => {
      if (event.type !== 'sample') return false;
      const { zero, teleported, sent } = event.pages;
      return event.totalPages > 0 && zero + teleported + sent > event.totalPages + 500;
    });
  }

  async function untilStopped(move: Move): Promise<void> {
    await move.until((event) => event.type === 'phase' && event.name === 'switch-over' && event.state === 'begin');
  }

  async function cutFor(ms: number): Promise<void> {
    await cutWan();
    await sleep(ms);
    await healWan();
  }

  async function expectMoved(move: Move): Promise<Awaited<Move['ended']>> {
    const outcome = await move.ended;
    expect(outcome.exitCode, outcome.stderr).toBe(0);
    expect(outcome.report).toMatchObject({ result: 'moved', vmLocation: 'destination', verified: true });
    guest.host = guest.otherHost;
    await expectNothingLeft([guest]);
    return outcome;
  }

  it.each(isFull ? lengthsMs : [10_000])('for %i ms in the first pass goes on', { timeout: 240_000 }, async (ms) => {
    const counted = await guest.count();
    const move = await beginSlowly();
    await move.untilPagesMove();
    await cutWan();
    const cutAtMs = performance.now();
    // Where the guest is, and that it waits for the network, can be asked meanwhile.
    if (ms > 5_000) {
      await move.until((event) => event.type === 'notice' && event.code === 'VMMIG_LINK_LOST');
      const status = await labExec(guest.host, ['vmmig', 'status', 'vm1', '--json'], { reject: false });
      expect(JSON.parse(status.stdout).migrations).toMatchObject([
        { vm: 'vm1', vmLocation: 'source', link: { isConnected: false } },
      ]);
    }
    await sleep(Math.max(0, ms - (performance.now() - cutAtMs)));
    await guest.expectToRun(counted);
    await healWan();
    await setWan(fastWan);
    const { report } = await expectMoved(move);
    if (ms > 5_000) expect(report.link.reconnects).toBeGreaterThan(0);
    await guest.expectToRun(counted);
  });

  it.runIf(isFull).each(lengthsMs)('for %i ms in a later pass goes on', { timeout: 240_000 }, async (ms) => {
    const counted = await guest.count();
    await guest.run('pattern start 8 200');
    const move = await beginSlowly('--max-downtime', '60ms', '--on-no-converge', 'stop-and-copy');
    await untilLaterPass(move);
    await cutFor(ms);
    await expectMoved(move);
    await guest.expectToRun(counted);
    expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
    await guest.run('pattern stop');
  });

  it.runIf(isFull)(
    'for 1 s when the guest has stopped makes it wait so much longer',
    { timeout: 240_000 },
    async () => {
      const counted = await guest.count();
      await guest.run('pattern start 12');
      const move = await beginSlowly('--max-downtime', '15s');
      await untilStopped(move);
      await cutFor(1_000);
      await expectMoved(move);
      await guest.expectToRun(counted);
      expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
      await guest.run('pattern stop');
    },
  );

  it.runIf(isFull)('for 30 s when the guest has stopped lets it go on where it was', { timeout: 240_000 }, async () => {
    const counted = await guest.count();
    await guest.run('pattern start 12');
    const move = await beginSlowly('--max-downtime', '15s');
    await untilStopped(move);
    const cutAtMs = performance.now();
    await cutWan();
    // It answers when it runs again.
    expect(await guest.count()).toBeGreaterThanOrEqual(counted);
    const stoodStillMs = performance.now() - cutAtMs;
    expect(stoodStillMs).toBeGreaterThan(4_000);
    expect(stoodStillMs).toBeLessThan(25_000);
    await sleep(30_000 - (performance.now() - cutAtMs));
    await healWan();
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(1);
    expect(report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_LINK_LOST' } });
    expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
    await guest.run('pattern stop');
    await guest.expectToRun(counted);
    await expectNothingLeft([guest], { timeoutMs: 120_000 });
    await setWan(fastWan);
    await guest.teleport();
  });

  it.runIf(isFull)('can be cancelled meanwhile', { timeout: 240_000 }, async () => {
    const counted = await guest.count();
    const move = await beginSlowly();
    await move.untilPagesMove();
    await cutWan();
    await move.until((event) => event.type === 'notice' && event.code === 'VMMIG_LINK_LOST');
    move.signal('SIGINT');
    const { exitCode, report } = await move.ended;
    expect(exitCode).toBe(3);
    expect(report).toMatchObject({ result: 'cancelled', vmLocation: 'source' });
    await guest.expectToRun(counted);
    await healWan();
    await expectNothingLeft([guest], { timeoutMs: 180_000 });
  });

  it.runIf(isFull)('for longer than --reconnect-timeout has failed', { timeout: 240_000 }, async () => {
    const counted = await guest.count();
    const move = await beginSlowly('--reconnect-timeout', '5s');
    await move.untilPagesMove();
    await cutWan();
    const { exitCode, report } = await move.ended;
    expect(exitCode).toBe(1);
    expect(report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_LINK_LOST' } });
    await guest.expectToRun(counted);
    await healWan();
    await expectNothingLeft([guest], { timeoutMs: 120_000 });
  });
});
