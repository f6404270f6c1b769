/** Guests that libvirt manages run on the other host at once; both daemons know it, and libvirt sees the end of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cutWan, healWan, hostNames, labExec, setWan, virsh } from '../../lab/index.js';
import type { StatusReport } from '../../migrate/index.js';
import { domainsOn, expectQuiet, expectToRunOnce, isPersistent, refusals, startDomain, unsafe } from './domains.js';
import { reportDocument } from './reportSchema.js';
import { fastWan, Guest, isFull, kill, type Move, processes, processOn, useLab } from './rig.js';

/** So slow that the pull lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
const noErrors = /^passes \d+ errors 0 /;

describe('A domain that is switched', () => {
  let guest: Guest;
  let counted: number;

  useLab({ ...fastWan, libvirt: '9.0' });

  beforeAll(async () => {
    guest = await startDomain('vm1');
    await guest.run('pattern start 8 4000');
  });

  beforeEach(async () => {
    counted = await guest.count();
  });

  afterEach(async () => {
    await healWan();
    await setWan(fastWan);
  });

  async function expectIntact(): Promise<void> {
    await guest.expectToRun(counted);
    expect(await guest.run('pattern status')).toMatch(noErrors);
    await expectQuiet();
  }

  async function expectToRunHere(): Promise<void> {
    await expectToRunOnce(guest, counted);
    expect(await guest.run('pattern status')).toMatch(noErrors);
  }

  it('runs on the other host at once, and leaves its configuration as virsh would', { timeout: 120_000 }, async () => {
    const { report } = await guest.switch(unsafe);
    expect(reportDocument.parse(report)).toEqual(report);
    expect(report).toMatchObject({ mode: 'switch', verified: true, capture: 'stream' });
    expect(report.pages.teleported).toBeGreaterThan(10_000);
    await expectIntact();
    expect(await domainsOn('hostA')).toEqual({ vm1: 'shut off' });
    expect(await virsh('hostA', ['domstate', '--reason', 'vm1'])).toBe('shut off (migrated)');
    expect(await domainsOn('hostB')).toEqual({ vm1: 'running' });
    expect(await virsh('hostB', ['domstate', '--reason', 'vm1'])).toBe('running (migrated)');
    expect(await isPersistent('hostB', 'vm1')).toBe(false);
  });

  it('keeps its configuration where it goes, and not where it was, when that is asked for', {
    timeout: 120_000,
  }, async () => {
    const from = guest.host;
    await guest.switch(unsafe, '--persistent', '--undefine-source');
    await expectIntact();
    expect(await domainsOn(from)).toEqual({});
    expect(await isPersistent(guest.host, 'vm1')).toBe(true);
  });

  /** QEMU comes to stopping the guest as late as a slow link lets a small page store empty. */
  async function beginSlowly(...more: readonly string[]): Promise<Move> {
    await setWan(slowWan);
    const move = guest.beginSwitch(unsafe, '--no-agent', '--page-store-limit', '32MiB', ...more);
    await move.untilPagesMove();
    return move;
  }

  it('stays where it is after Ctrl-C', { timeout: 180_000 }, async () => {
    const move = await beginSlowly();
    move.signal('SIGINT');
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ result: 'cancelled', vmLocation: 'source', verified: null });
    expect(exitCode).toBe(3);
    await expectToRunHere();
  });

  /** Starts a switch in which the page cache crosses a slow link. From here on the guest is on the other host. */
  async function beginPull(): Promise<Move> {
    await setWan(slowWan);
    const move = guest.beginSwitch(unsafe, '--no-agent');
    await move.untilPull();
    guest.host = guest.otherHost;
    return move;
  }

  async function expectMoved(move: Move): Promise<void> {
    await setWan(fastWan);
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null, verified: true });
    expect(exitCode).toBe(0);
    await expectToRunHere();
    expect(await virsh(guest.host, ['domstate', '--reason', 'vm1'])).toBe('running (migrated)');
  }

  it('has ended where it was, and is running where it is, while its memory is pulled', {
    timeout: 180_000,
  }, async () => {
    const move = await beginPull();
    const { stdout } = await labExec(guest.host, ['vmmig', 'status', 'vm1', '--json'], { reject: false });
    expect(stdout).toMatch(/"vm": ?"vm1"/);
    expect((await domainsOn(guest.otherHost)).vm1 ?? 'shut off').toBe('shut off');
    expect(await virsh(guest.host, ['domstate', '--reason', 'vm1'])).toBe('running (post-copy)');
    move.signal('SIGINT');
    await cutWan();
    await sleep(10_000);
    await healWan();
    await expectMoved(move);
  });

  it.runIf(isFull)('waits for its memory for as long as the link is cut', { timeout: 180_000 }, async () => {
    const move = await beginPull();
    await cutWan();
    // Longer than libvirt waits for a peer that does not answer.
    await sleep(40_000);
    await healWan();
    await expectMoved(move);
  });

  it('is refused where its QEMU is of a user who may not use userfaultfd', { timeout: 60_000 }, async () => {
    expect(await refusals(guest, '--mode', 'switch', unsafe)).toEqual([]);
    const other = await Guest.start('vm3', { memoryMiB: 128, libvirt: { user: 'libvirt-qemu' } });
    expect(await refusals(other, '--mode', 'switch', unsafe)).toEqual(['VMMIG_USERFAULTFD']);
  });

  it.runIf(isFull)(
    'is lost with the service that brings it memory, and that is said',
    { timeout: 240_000 },
    async () => {
      const move = await beginPull();
      await kill(guest.host, await processOn(guest.host, processes.service));
      const { exitCode, report } = await move.ended;
      expect(exitCode).toBe(6);
      expect(report).toMatchObject({ vmLocation: 'destination', error: { code: 'VMMIG_MEMORY_LOST', phase: 'pull' } });
      expect(report.error!.message).toMatch(/End it there and start it again from its disk$/);
      // It has not been ended with the connection over which it came: what it has written is on its way to its disks.
      expect(await virsh(guest.host, ['domstate', '--reason', 'vm1'])).toBe('running (post-copy failed)');
      await setWan(fastWan);
      const { stdout: status } = await labExec(guest.host, ['vmmig', 'status', 'vm1', '--json']);
      expect((JSON.parse(status) as StatusReport).migrations).toMatchObject([
        {
          vmLocation: 'destination',
          problems: [expect.stringMatching(/is lost: end it on host[AB] and start it again/)],
        },
      ]);
      const asked = ['vmmig', 'recover', 'vm1', '--json'] as const;
      const recovered = await labExec(guest.otherHost, [...asked], { reject: false });
      expect(recovered.exitCode, recovered.stderr).toBe(6);
      expect(JSON.parse(recovered.stdout)).toMatchObject({ error: { code: 'VMMIG_MEMORY_LOST' } });
      await virsh(guest.host, ['destroy', 'vm1']);
      expect((await domainsOn(guest.host)).vm1 ?? 'shut off').toBe('shut off');
      await expectQuiet();
      const again = await labExec(guest.otherHost, [...asked], { reject: false });
      expect(again.exitCode, again.stderr).toBe(7);
      expect(JSON.parse(again.stdout)).toMatchObject({ error: { code: 'VMMIG_INCONCLUSIVE' } });
      for (const host of hostNames) await labExec(host, ['virsh', 'undefine', 'vm1'], { reject: false });
      guest = await startDomain('vm1');
    },
  );

  it.runIf(isFull)(
    'that was lost and ended while nobody watched is known to run nowhere',
    { timeout: 240_000 },
    async () => {
      const from = guest.host;
      await beginPull();
      await kill(from, await processOn(from, processes.commandLine));
      await kill(guest.host, await processOn(guest.host, processes.service));
      await virsh(guest.host, ['destroy', 'vm1']);
      await setWan(fastWan);
      const { exitCode, stdout, stderr } = await labExec(from, ['vmmig', 'recover', 'vm1', '--json'], {
        reject: false,
      });
      expect(exitCode, stderr).toBe(7);
      expect(JSON.parse(stdout)).toMatchObject({ vmLocation: 'unknown', error: { code: 'VMMIG_GUEST_ENDED' } });
      await expectQuiet();
      const again = await labExec(from, ['vmmig', 'recover', 'vm1'], { reject: false });
      expect(again.stderr).toContain('VMMIG_USAGE_NOTHING_TO_RECOVER');
    },
  );
});
