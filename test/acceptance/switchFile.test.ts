/** A guest whose memory is a shared file runs on the other host at once, and its memory follows from the file. */
import { describe, expect, it } from 'vitest';
import { labExec } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';

const filesMiB = isFull ? 200 : 100;
const memoryMiB = 384;

describe.each(['7.2', '10.0'] as const)('A guest in QEMU %s whose memory is a shared file', (qemu) => {
  useLab({ qemu, ...(qemu === '7.2' ? { rttMs: 40, rateBps: 200e6 } : fastWan) });

  it('runs on the other host at once, and comes back', { timeout: 180_000 }, async () => {
    const guest = await Guest.start('vm1', {
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
});
