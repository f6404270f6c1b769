/** A switch that nobody watches any more: what is said of it meanwhile, and how it is brought to its end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { labExec, setWan } from '../../lab/index.js';
import type { MigrationReport, StatusReport } from '../../migrate/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, kill, processes, processOn, useLab } from './rig.js';
import { ThirdMachine } from './thirdMachine.js';

/** Without an agent the page cache is memory as any other, and takes this link some seconds. */
const filesMiB = 12;
const slowWan = { rttMs: 20, rateBps: 30e6 } as const;
const unwatched = ['--no-agent', '--no-compress'] as const;

describe('A switch that nobody watches', () => {
  let guest: Guest;

  useLab(fastWan);
  const machine = ThirdMachine.use();

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 192, data: { contents: 'random', filesMiB, freeMiB: 16 } });
    await guest.run('fill-cache');
  });

  /** On the host where the last command was, which knows its journal. */
  const here = async (...args: string[]) =>
    await labExec('hostA', ['vmmig', ...args, '--json'] as [string, ...string[]], { reject: false });

  /** From a machine that has no part in it, and knows nothing but the inventory. */
  const third = (...args: string[]) => machine.vmmig(...args, '--json');

  async function status(ask: (...args: string[]) => Promise<{ stdout: string }>): Promise<StatusReport> {
    return JSON.parse((await ask('status', 'vm1')).stdout) as StatusReport;
  }

  async function backHome(): Promise<void> {
    await setWan(fastWan);
    await guest.teleport();
    await expectNothingLeft([guest]);
  }

  it('is not made when there is none, and there is nothing to recover then', async () => {
    expect(await status(here)).toEqual({ schema: 'vmmig.status/1', migrations: [], silent: [] });
    const recovered = await here('recover', 'vm1');
    expect(recovered.exitCode).toBe(2);
    expect(recovered.stderr).toContain('VMMIG_USAGE_NOTHING_TO_RECOVER');
  });

  it('is refused when its exposure would be too long, and the guest stays', { timeout: 60_000 }, async () => {
    await setWan(slowWan);
    const outcome = await guest.beginSwitch(...unwatched, '--max-exposure', '2s').ended;
    expect(outcome.report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_EXPOSURE' } });
    expect(outcome.exitCode).toBe(1);
    await guest.expectToRun(0);
    await expectNothingLeft([guest]);
  });

  it('goes on when the operator leaves it, is told of by every machine, and recovered', {
    timeout: 120_000,
  }, async () => {
    await setWan(slowWan);
    const counted = await guest.count();
    const move = guest.beginSwitch(...unwatched);
    await move.untilPull();
    guest.host = 'hostB';
    await move.until((event) => event.type === 'sample' && event.pull !== undefined);
    const watched = await status(here);
    expect(watched.migrations).toMatchObject([
      {
        vm: 'vm1',
        mode: 'switch',
        from: 'hostA',
        to: 'hostB',
        phase: 'pull',
        vmLocation: 'destination',
        pid: expect.any(Number),
        link: { isConnected: true, interruptedSince: null, reconnects: 0 },
        problems: [],
      },
    ]);

    move.signal('SIGINT');
    // Two that come at once are one.
    await sleep(500);
    move.signal('SIGINT');
    const { exitCode, report } = await move.ended;
    expect(report).toMatchObject({ result: 'interrupted', vmLocation: 'destination', error: { code: 'VMMIG_LEFT' } });
    expect(exitCode).toBe(6);

    const [unwatchedStatus] = (await status(third)).migrations;
    expect(unwatchedStatus).toMatchObject({ phase: 'pull', vmLocation: 'destination', pid: null, problems: [] });
    expect(unwatchedStatus!.remaining!.bytes).toBeGreaterThan(0);
    expect(unwatchedStatus!.faults!.count).toBeGreaterThan(0);
    expect(Date.parse(unwatchedStatus!.exposedSince!)).toBeLessThan(Date.now());

    await setWan(fastWan);
    const recovered = await here('recover', 'vm1', '--progress', 'none');
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    const completed = JSON.parse(recovered.stdout) as MigrationReport;
    expect(reportDocument.parse(completed)).toEqual(completed);
    expect(completed).toMatchObject({ id: report.id, result: 'moved', error: null, verified: true });
    expect(completed.startedAt).toBe(report.startedAt);
    expect(completed.recoveredAt).not.toBeNull();
    expect(completed.exposureMs).toBeGreaterThan(0);
    expect(JSON.parse((await here('show', 'vm1')).stdout)).toEqual(completed);
    await guest.expectToRun(counted);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
    await backHome();
  });

  it('ends by itself, and is taken note of later', { timeout: 120_000 }, async () => {
    await setWan(slowWan);
    const move = guest.beginSwitch(...unwatched);
    await move.untilPull();
    move.signal('SIGKILL');
    await move.ended;
    guest.host = 'hostB';
    await setWan(fastWan);
    await expectNothingLeft([guest], { timeoutMs: 30_000 });
    const recovered = await here('recover', 'vm1', '--progress', 'none');
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    expect(JSON.parse(recovered.stdout)).toMatchObject({ result: 'moved', vmLocation: 'destination' });
    await backHome();
  });

  it('is given up before its commit point, from anywhere', { timeout: 60_000 }, async () => {
    await setWan(slowWan);
    const counted = await guest.count();
    // QEMU has to wait for the link: its first pass, before whose end it does not stop the guest, takes that long.
    const move = guest.beginSwitch(...unwatched, '--page-store-limit', '8MiB');
    await move.untilPagesMove();
    expect((await status(third)).migrations).toMatchObject([{ phase: 'precopy', vmLocation: 'source', pid: null }]);
    const recovered = await third('recover', 'vm1', '--progress', 'none');
    expect(recovered.exitCode, recovered.stderr).toBe(1);
    expect(JSON.parse(recovered.stdout)).toMatchObject({
      result: 'failed',
      vmLocation: 'source',
      error: { code: 'VMMIG_GIVEN_UP' },
    });
    expect((await move.ended).exitCode).toBe(1);
    await guest.expectToRun(counted);
    await setWan(fastWan);
    await expectNothingLeft([guest]);
  });

  /** A teleport whose command is killed when it has asked, and the answer is on the way. */
  async function teleportUnwatched(struck: () => Promise<void> = async () => {}): Promise<void> {
    await setWan({ rttMs: 200, rateBps: 1e9 });
    const move = guest.begin();
    await move.until((event) => event.type === 'phase' && event.name === 'verify' && event.state === 'begin');
    await sleep(60);
    move.signal('SIGKILL');
    await struck();
    await move.ended;
  }

  it('may have been a teleport whose command was killed when it had asked: the hosts end it', async () => {
    const counted = await guest.count();
    await teleportUnwatched();
    guest.host = guest.otherHost;
    await setWan(fastWan);
    await expectNothingLeft([guest]);
    await guest.expectToRun(counted);
    expect((await third('recover', 'vm1')).stderr).toContain('VMMIG_USAGE_NOTHING_TO_RECOVER');
    await guest.teleport();
  }, 60_000);

  it('may have been a teleport whose command and service were killed then: the hosts know', async () => {
    const counted = await guest.count();
    await teleportUnwatched(async () => kill('hostA', await processOn('hostA', processes.service)));
    expect((await status(third)).migrations).toMatchObject([{ vm: 'vm1', mode: 'teleport', pid: null }]);
    const recovered = await third('recover', 'vm1', '--progress', 'none');
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    const report = JSON.parse(recovered.stdout) as MigrationReport;
    expect(reportDocument.parse(report)).toEqual(report);
    expect(report).toMatchObject({ mode: 'teleport', result: 'moved', vmLocation: 'destination', error: null });
    guest.host = 'hostB';
    await setWan(fastWan);
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
  }, 60_000);
});
