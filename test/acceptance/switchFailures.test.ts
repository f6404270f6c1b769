/** Whatever fails before a switch is committed: the guest runs on the source, nothing is left behind, and the next works. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { cutWan, healWan, labExec, labPaths, setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, kill, type Move, processes, processOn, useLab } from './rig.js';
import { strikes } from './strikes.js';

const slowWan = { rttMs: 10, rateBps: 20e6 } as const;

describe('A switch that fails before its commit point', () => {
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

  /** QEMU may stop the guest at any time, and comes to it as late as a slow link lets a small page store empty. */
  async function beginSlowly(...more: readonly string[]): Promise<Move> {
    await setWan(slowWan);
    const move = guest.beginSwitch('--no-agent', '--page-store-limit', '32MiB', ...more);
    await move.until((event) => event.type === 'phase' && event.name === 'switch-over');
    await move.untilPagesMove();
    return move;
  }

  async function expectNextMoveToWork(): Promise<void> {
    await setWan(fastWan);
    await guest.switch();
    await expectNothingLeft([guest]);
  }

  it.each(isFull ? strikes : strikes.filter(({ isSlow }) => !isSlow))(
    'by $name leaves the guest where it was',
    { timeout: 90_000 },
    async (failure) => {
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
    },
  );

  it('by a kill of vmmig itself is put right by the services on the hosts', { timeout: 90_000 }, async () => {
    const move = await beginSlowly();
    await kill(guest.host, await processOn(guest.host, processes.commandLine));
    await move.ended;
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    await expectNextMoveToWork();
  });

  it('because the destination refuses its devices, is told so and resumes it', { timeout: 60_000 }, async () => {
    const inventory = join(labPaths.shared(), 'other-devices.yaml');
    const { guests, ...rest } = parse(await readFile(labPaths.inventory(), 'utf8'));
    guests['vm1'].destination = { options: ['-global', 'virtio-blk-device.discard=off'] };
    await writeFile(inventory, stringify({ ...rest, guests }));
    const { exitCode, report, stderr } = await guest.beginSwitch('--inventory', inventory).ended;
    expect(report, stderr).toMatchObject({ result: 'failed', vmLocation: 'source', verified: null });
    expect(exitCode).toBe(1);
    expect(report.error!.code).toMatch(/^VMMIG_(SWITCH_REFUSED|DESTINATION_LOAD)$/);
    expect(report.error!.message).toMatch(/virtio-blk/);
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    await expectNextMoveToWork();
  });

  it('because it was not to switch yet', { timeout: 90_000 }, async () => {
    await setWan(slowWan);
    const move = guest.beginSwitch('--no-agent', '--after', '10m');
    await move.untilPagesMove();
    move.signal('SIGINT');
    const { exitCode, report } = await move.ended;
    expect(report).toMatchObject({ result: 'cancelled', vmLocation: 'source', error: { phase: 'precopy' } });
    expect(exitCode).toBe(3);
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
  });

  it.skipIf(!isFull)('by a link that is cut for good is noticed on both hosts', { timeout: 120_000 }, async () => {
    const move = await beginSlowly();
    await cutWan();
    try {
      await move.until((event) => event.type === 'phase' && event.name === 'switch-over' && event.state === 'end');
      await expect
        .poll(() => labExec(guest.otherHost, ['pgrep', '-c', 'qemu'], { reject: false }).then(({ stdout }) => stdout), {
          timeout: 20_000,
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
