/** A guest runs on the other host at once, whole, and nothing of it is left where it was. */
import { describe, expect, it } from 'vitest';
import { setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, useLab } from './rig.js';

const filesMiB = 100;
const memoryMiB = 320;

describe.each(['7.2', '10.0'] as const)('A guest in QEMU %s with page cache', (qemu) => {
  useLab({ qemu, rttMs: 40, rateBps: 200e6 });

  it('runs on the other host at once, and its page cache comes from the disk there', { timeout: 120_000 }, async () => {
    const guest = await Guest.start('vm1', { memoryMiB, data: { contents: 'random', filesMiB } });
    await guest.run('fill-cache');
    const { report, wanBytes } = await guest.switch();

    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
    expect(reportDocument.parse(report)).toEqual(report);
    expect(report).toMatchObject({ vm: 'vm1', from: 'hostA', to: 'hostB', mode: 'switch', error: null });
    const { agent, pages, bytes, faults } = report;
    expect(agent!.pages).toBeGreaterThan(filesMiB * 256 * 0.99);
    expect(pages.teleported).toBeGreaterThan(filesMiB * 256 * 0.9);
    expect(bytes.wire).toBeLessThan((memoryMiB * 2 ** 20) / 5);
    expect(bytes.wire).toBeGreaterThan(wanBytes * 0.9);
    expect(bytes.wire).toBeLessThan(wanBytes * 1.05);
    expect(report.switchoverMs).toBeGreaterThan(0);
    expect(report.switchoverMs).toBeLessThan(report.releasedMs);
    expect(report.releasedMs).toBeLessThanOrEqual(report.totalMs);
    expect(report.downtimeMs).toBeGreaterThan(0);
    expect(faults).toMatchObject({ waiting: 0 });
    expect(report.link.reconnects).toBe(0);

    // QEMU is as it was: ready for whatever moves it next.
    const capabilities = await guest.withMonitor((qmp) => qmp.execute('query-migrate-capabilities'));
    expect(capabilities.filter(({ state }) => state).map(({ capability }) => capability)).toEqual([]);
    await setWan(fastWan);
    await guest.teleport();
    await expectNothingLeft([guest]);
  });
});
