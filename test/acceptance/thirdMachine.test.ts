/** From a machine that is neither source nor destination: all it has is the inventory and SSH. */
import { beforeAll, describe, expect, it } from 'vitest';
import { guestDirectory, labExec } from '../../lab/index.js';
import type { GuestList, HostCheck, MigrationReport, PreflightReport, ScanReport } from '../../migrate/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, useLab } from './rig.js';
import { ThirdMachine } from './thirdMachine.js';

describe('From a third machine', () => {
  let guest: Guest;

  useLab(fastWan);
  const machine = ThirdMachine.use();

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 128, data: { contents: 'random', filesMiB: 16, freeMiB: 16 } });
    await guest.run('fill-cache');
  });

  /** What stdout holds, which must be one JSON document and nothing else. */
  async function json<T>(exitCode: number, ...args: string[]): Promise<T> {
    const result = await machine.vmmig(...args, '--json');
    expect(result.exitCode, result.stderr).toBe(exitCode);
    return JSON.parse(result.stdout) as T;
  }

  const qmpPath = `${guestDirectory}/vm1.qmp`;
  const there = ['vm1', '--from', 'hostA', '--to', 'hostB'] as const;

  it('guests are listed, hosts are checked and the page cache is looked at', async () => {
    const list = await json<GuestList>(0, 'list');
    const check = await json<HostCheck>(0, 'host', 'check', 'hostB');
    const scan = await json<ScanReport>(0, 'agent', 'scan', 'vm1');
    expect(list.guests).toMatchObject([{ vm: 'vm1', host: 'hostA', state: 'running', agent: true, migration: null }]);
    expect(check).toMatchObject({ host: 'hostB', reachable: true });
    expect(scan.pages).toBeGreaterThan(16 * 256 * 0.99);
  });

  it.each([
    ['preflight', ['preflight', ...there]],
    ['teleport --dry-run', ['teleport', ...there, '--dry-run']],
  ])('%s finds the guest ready and changes nothing', async (_, args) => {
    const counted = await guest.count();
    const report = await json<PreflightReport>(0, ...args);
    expect(report).toMatchObject({ result: 'ready', from: 'hostA', to: 'hostB', findings: [], error: null });
    expect(report.estimate!.teleportableBytes).toBeGreaterThan(16 * 2 ** 20 * 0.99);
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
  });

  describe('a guest that cannot move is refused, and nothing is changed:', () => {
    it.each([
      ['teleport', ['teleport', 'vm9', '--to', 'hostB']],
      ['switch', ['switch', 'vm9', '--to', 'hostB']],
      ['preflight', ['preflight', 'vm9', '--to', 'hostB']],
    ])('%s finds a guest nowhere that neither the inventory nor libvirt knows', async (verb, args) => {
      const report = await json<MigrationReport | PreflightReport>(5, ...args);
      if (verb !== 'preflight')
        expect(reportDocument.parse(report)).toMatchObject({
          vmLocation: 'unknown',
          error: { code: 'VMMIG_PREFLIGHT_REFUSED', phase: 'preflight' },
        });
      expect(report).toMatchObject({
        result: 'refused',
        findings: [{ severity: 'refuse', code: 'VMMIG_GUEST_NOT_FOUND' }],
      });
      const [finding] = report.findings;
      expect(finding!.message).toMatch(/no guest vm9, and libvirt runs no domain of that name; looked on hostA/);
    });

    it('a host out of reach has an exit code of its own', async () => {
      const path = await machine.inventoryWith(({ hosts }) => {
        hosts.hostC = { ssh: 'root@127.0.0.1:9', hostname: 'hostC' };
      });
      const report = await json<MigrationReport>(4, 'teleport', 'vm1', '--to', 'hostC', '--inventory', path);
      expect(reportDocument.parse(report)).toMatchObject({
        result: 'failed',
        vmLocation: 'source',
        error: { code: 'VMMIG_SSH_UNREACHABLE', phase: 'preflight', retryable: true },
      });
      await expectNothingLeft([guest]);
    });

    it('all reasons are told at once', { timeout: 60_000 }, async () => {
      const path = await machine.inventoryWith(({ guests }) => {
        guests.vm1!.disks.data = { path: '/var/empty/nowhere.img' };
      });
      const squatter = labExec('hostB', ['socat', `UNIX-LISTEN:${qmpPath}`, '-'], { reject: false, stdin: 'pipe' });
      await guest.withMonitor((qmp) => qmp.execute('stop'));
      try {
        await expect
          .poll(() => labExec('hostB', ['test', '-S', qmpPath], { reject: false }).then(({ exitCode }) => exitCode))
          .toBe(0);
        const report = await json<MigrationReport>(5, 'teleport', ...there, '--inventory', path);
        expect(reportDocument.parse(report)).toMatchObject({
          result: 'refused',
          vmLocation: 'source',
          error: { code: 'VMMIG_PREFLIGHT_REFUSED', phase: 'preflight' },
        });
        const refusals = report.findings.filter(({ severity }) => severity === 'refuse').map(({ code }) => code);
        expect(refusals.sort()).toEqual(['VMMIG_DESTINATION_ADDRESS', 'VMMIG_DISK_IMAGE', 'VMMIG_GUEST_NOT_RUNNING']);
        expect((await guest.withMonitor((qmp) => qmp.execute('query-status'))).running).toBe(false);
      } finally {
        squatter.kill();
        await squatter;
        await labExec('hostB', ['rm', '-f', qmpPath]);
        await guest.withMonitor((qmp) => qmp.execute('cont'));
      }
      await expectNothingLeft([guest]);
    });
  });

  it('the guest moves, and is found where it went', { timeout: 60_000 }, async () => {
    const counted = await guest.count();
    const report = await json<MigrationReport>(0, 'teleport', ...there);
    guest.host = 'hostB';
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    expect(reportDocument.parse(report)).toMatchObject({ result: 'moved', from: 'hostA', to: 'hostB', verified: true });
    expect(report.pages.teleported).toBeGreaterThan(report.agent!.pages * 0.99);
    expect(await json<MigrationReport>(0, 'show', 'vm1')).toEqual(report);
    expect((await json<GuestList>(0, 'list')).guests).toMatchObject([{ vm: 'vm1', host: 'hostB', state: 'running' }]);
  });

  it('the guest is switched back', { timeout: 60_000 }, async () => {
    const counted = await guest.count();
    const report = await json<MigrationReport>(0, 'switch', 'vm1', '--from', 'hostB', '--to', 'hostA');
    guest.host = 'hostA';
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
    expect(reportDocument.parse(report)).toMatchObject({ mode: 'switch', result: 'moved', from: 'hostB', to: 'hostA' });
    expect(report.switchoverMs).toBeLessThan(report.releasedMs);
    expect(report.bytes.wire).toBeLessThan(64 * 2 ** 20);
  });
});
