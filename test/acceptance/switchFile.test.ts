/** A guest whose memory is a shared file runs on the other host at once, and its memory follows from the file. */
import { describe, expect, it } from 'vitest';
import { labExec } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, kill, processes, processOn, useLab } from './rig.js';

const filesMiB = isFull ? 200 : 100;
const memoryMiB = 384;

describe.each(['7.2', '10.0'] as const)('A guest in QEMU %s whose memory is a shared file', (qemu) => {
  useLab({ qemu, ...(qemu === '7.2' ? { rttMs: 40, rateBps: 200e6 } : fastWan) });
  let guest: Guest;

  it('runs on the other host at once, and comes back', { timeout: 180_000 }, async () => {
    guest = await Guest.start('vm1', {
      memoryMiB,
      sharedMemory: true,
      data: { contents: 'random', filesMiB },
    });
    await guest.run('fill-cache');
    await guest.run('pattern start 16 1000');
    for (const to of ['hostB', 'hostA']) {
      const { report } = await guest.switch();
      expect(guest.host).toBe(to);
      expect(reportDocument.parse(report)).toEqual(report);
      expect(report).toMatchObject({ mode: 'switch', capture: 'memory file', error: null });
      const { agent, pages, bytes, faults } = report;
      expect(agent!.pages).toBeGreaterThan(filesMiB * 256 * 0.99);
      expect(pages.teleported).toBeGreaterThan(filesMiB * 256 * 0.9);
      // Device state, and what is in no file.
      expect(bytes.stream).toBeLessThan(2 * 2 ** 20);
      expect(bytes.wire).toBeLessThan((memoryMiB * 2 ** 20) / 3);
      expect(faults).toMatchObject({ waiting: 0 });
      expect(await guest.run('pattern status')).toMatch(/errors 0/);
      const { stdout } = await labExec(guest.otherHost, ['stat', '-c', '%b', '/dev/shm/vm1.ram']);
      expect(stdout, 'blocks that the file still takes').toBe('0');
    }
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
  });

  it('stays where it is as soon as the QEMU that it waits for has ended', { timeout: 60_000 }, async () => {
    const counted = await guest.count();
    const move = guest.beginSwitch('--after', '10m');
    await move.untilPagesMove();
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.qemu));
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ result: 'failed', vmLocation: 'source' });
    expect(report.error).toMatchObject({ code: 'VMMIG_DESTINATION_LOAD', phase: 'precopy' });
    expect(exitCode).toBe(1);
    await guest.expectToRun(counted);
    await expectNothingLeft([guest]);
  });

  it('is known to have ended as soon as it has', { timeout: 60_000 }, async () => {
    const move = guest.beginSwitch('--after', '10m');
    await move.untilPagesMove();
    await kill(guest.host, await processOn(guest.host, processes.qemu));
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ error: { code: 'VMMIG_GUEST_ENDED' }, vmLocation: 'unknown' });
    expect(exitCode).toBe(7);
    await expectNothingLeft([]);
  });
});
