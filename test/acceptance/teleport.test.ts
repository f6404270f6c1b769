import { describe, expect, it } from 'vitest';
import { labExec } from '../../lab/index.js';
import type { MigrationReport } from '../../migrate/index.js';
import { phaseNames } from '../../migrate/report.js';
import { reportDocument } from './reportSchema.js';
import { peaksDuring, residentLimitBytes } from './residentMemory.js';
import { expectNothingLeft, Guest, isFull, type MoveOutcome, useLab } from './rig.js';

const filesMiB = isFull ? 400 : 200;
const memoryMiB = filesMiB + 312;
const sectorsOfFiles = filesMiB * 2048;

describe.each(['7.2', '10.0'] as const)('A guest in QEMU %s with page cache', (qemu) => {
  useLab({ qemu, rttMs: 40, rateBps: 200e6 });

  it('moves, carries on, and still has its page cache', { timeout: 120_000 }, async () => {
    const guest = await Guest.start('vm1', { memoryMiB, data: { contents: 'random', filesMiB } });
    await guest.run('fill-cache');
    let moved!: MoveOutcome;
    const peaks = await peaksDuring(async () => {
      moved = await guest.teleport();
    });
    const { report, wanBytes } = moved;
    expect(peaks.length).toBeGreaterThanOrEqual(2);
    expect(Math.max(...peaks)).toBeLessThan(residentLimitBytes(memoryMiB));

    // Before anything else reads the disk.
    const readsBefore = Number(await guest.run('disk-reads'));
    await guest.run('fill-cache');
    const reads = Number(await guest.run('disk-reads')) - readsBefore;
    expect(reads, `of ${sectorsOfFiles} sectors`).toBeLessThan(sectorsOfFiles / 100);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);

    expect(reportDocument.parse(report)).toEqual(report);
    expect(report).toMatchObject({ vm: 'vm1', from: 'hostA', to: 'hostB', mode: 'teleport' });
    expect(report.phases.map(({ name }) => name).sort()).toEqual(phaseNames.filter((name) => name !== 'pull').sort());
    const { agent, pages, bytes } = report;
    expect(agent!.pages).toBeGreaterThan(filesMiB * 256 * 0.99);
    expect(pages.teleported).toBeGreaterThan(agent!.pages * 0.99);
    expect(pages.seen).toBe(pages.zero + pages.teleported + pages.sent);
    expect(bytes.restored).toBeGreaterThanOrEqual(pages.teleported * 4096);
    expect(bytes.wire).toBeGreaterThan(wanBytes * 0.94);
    expect(bytes.wire).toBeLessThan(wanBytes * 1.01);
    expect(bytes.wire).toBeLessThan((filesMiB * 2 ** 20) / 4);
    expect(report.switchoverMs).toBeLessThanOrEqual(report.releasedMs);
    expect(report.releasedMs).toBeLessThanOrEqual(report.totalMs);
    expect(report.downtimeMs).toBeLessThan(1000);
    expect(report.link.rttMs).toBeGreaterThanOrEqual(40);

    const listed = JSON.parse((await labExec('hostA', ['vmmig', 'history', '--json'])).stdout) as MigrationReport[];
    expect(listed).toEqual([report]);
    for (const name of ['vm1', report.id])
      expect(JSON.parse((await labExec('hostA', ['vmmig', 'show', name, '--json'])).stdout)).toEqual(report);
  });
});
