/** Whatever fails before the commit point: the guest runs on the source, nothing is left behind, and the next move works. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cutWan, healWan, labExec, setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, kill, type Move, processes, processOn, useLab } from './rig.js';
import { strikes } from './strikes.js';

/** So slow that pre-copy lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;

describe('A migration that fails', () => {
  let guest: Guest;
  let counted: number;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 192, data: { contents: 'random', filesMiB: 64, freeMiB: 16 } });
    await guest.run('fill-cache');
  });

  beforeEach(async () => {
    counted = await guest.count();
  });

  /** Starts a move in which the page cache is sent over a slow link. */
  async function beginSlowly(...more: string[]): Promise<Move> {
    await setWan(slowWan);
    const move = guest.begin('--no-agent', ...more);
    await move.untilPagesMove();
    return move;
  }

  async function expectNextMoveToWork(): Promise<void> {
    await setWan(fastWan);
    await guest.teleport();
    await expectNothingLeft([guest]);
  }

  it.each(strikes)('by $name leaves the guest where it was', { timeout: 90_000 }, async (failure) => {
    const move = await beginSlowly(...(failure.options ?? []));
    await failure.strike(move, guest);
    const { exitCode, report, stderr } = await move.ended;
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    expect(report, stderr).toMatchObject({ result: failure.result, vmLocation: 'source', verified: null });
    expect(exitCode).toBe(failure.exitCode);
    expect(report.error!.code).toMatch(failure.code);
    expect(reportDocument.parse(report)).toEqual(report);
    await expectNextMoveToWork();
  });

  it('by a kill of vmmig itself is put right by the services on the hosts', { timeout: 90_000 }, async () => {
    const move = await beginSlowly();
    await kill(guest.host, await processOn(guest.host, processes.commandLine));
    await move.ended;
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    await expectNextMoveToWork();
  });

  it('by a link that is cut for good is noticed in about ten seconds', { timeout: 120_000 }, async () => {
    const move = await beginSlowly('--reconnect-timeout', '0');
    const cutAtMs = performance.now();
    await cutWan();
    try {
      await move.until((event) => event.type === 'phase' && event.name === 'precopy' && event.state === 'end');
      expect(performance.now() - cutAtMs).toBeLessThan(15_000);
      // Also the destination, which nobody can reach.
      await expect
        .poll(() => labExec(guest.otherHost, ['pgrep', '-c', 'qemu'], { reject: false }).then(({ stdout }) => stdout), {
          timeout: 15_000,
        })
        .toBe('0');
      const { exitCode, report } = await move.ended;
      expect(exitCode).toBe(1);
      expect(report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_LINK_LOST' } });
      await guest.expectToRun(counted);
      await expectNothingLeft([guest], { hosts: [guest.host] });
    } finally {
      await healWan();
    }
    await expectNothingLeft([guest], { timeoutMs: 40_000 });
    await expectNextMoveToWork();
  });
});
