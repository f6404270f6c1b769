/** Whatever fails before a switch is committed: the guest runs on the source, nothing is left behind, and the next works. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { labPaths, setWan } from '../../lab/index.js';
import { expectNothingLeft, fastWan, Guest, useLab } from './rig.js';

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

  async function expectNextMoveToWork(): Promise<void> {
    await setWan(fastWan);
    await guest.switch();
    await expectNothingLeft([guest]);
  }

  it('because the destination refuses its devices, is told so and resumes it', { timeout: 60_000 }, async () => {
    const inventory = join(labPaths.shared(), 'other-devices.yaml');
    const { guests, ...rest } = parse(await readFile(labPaths.inventory(), 'utf8'));
    guests.vm1.destination = { options: ['-global', 'virtio-blk-device.discard=off'] };
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
});
