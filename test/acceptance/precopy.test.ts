/** What happens while the guest runs and its memory is copied. */
import { describe, expect, it } from 'vitest';
import { setWan } from '../../lab/index.js';
import type { ProgressEvent } from '../../migrate/index.js';
import { expectNothingLeft, fastWan, Guest, useLab } from './rig.js';

type Sample = Extract<ProgressEvent, { type: 'sample' }>;

const pagesOfMiB = 256;
const filesMiB = 32;
const options = { memoryMiB: 192, data: { contents: 'random', filesMiB, freeMiB: 16 } } as const;

describe('While its memory is copied', () => {
  useLab(fastWan);

  it('what a guest reads from its disk becomes teleportable, too', { timeout: 90_000 }, async () => {
    const guest = await Guest.start('vm1', options);
    // More than the link takes, so that copying does not end before the writer does.
    await guest.run('pattern start 24 4000');
    await setWan({ rttMs: 10, rateBps: 100e6 });
    const counted = await guest.count();
    const move = guest.begin('--on-no-converge', 'wait');
    // Until everything has been seen once: what is read from then on is seen again.
    await move.until((event) => event.type === 'sample' && seenPages(event) > event.totalPages);
    await guest.run('fill-cache');
    await move.until((event) => event.type === 'sample' && event.pages.teleported > filesMiB * pagesOfMiB * 0.6);
    await guest.run('pattern stop');
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(0);
    guest.host = 'hostB';
    await guest.expectToRun(counted);
    expect(report.agent!.scans).toBeGreaterThan(1);
    expect(report.agent!.pages).toBeGreaterThan(filesMiB * pagesOfMiB * 0.99);
    expect(report.pages.teleported).toBeGreaterThan(filesMiB * pagesOfMiB * 0.6);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
  });
});

describe('An agent that takes long', () => {
  useLab({ rttMs: 10, rateBps: 20e6 });

  it('is not waited for, and used when it has answered', { timeout: 90_000 }, async () => {
    const guest = await Guest.start('vm1', options);
    await guest.run('fill-cache');
    const counted = await guest.count();
    // It scans at idle priority: these leave it next to no time.
    await guest.run('for hog in 1 2 3 4; do yes >/dev/null 2>&1 </dev/null & done');
    const move = guest.begin();
    await move.until((event) => event.type === 'notice' && event.code === 'VMMIG_AGENT_SLOW');
    await move.until((event) => event.type === 'sample');
    await guest.run('kill $(pidof yes)');
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(0);
    guest.host = 'hostB';
    await guest.expectToRun(counted);
    expect(report.agent!.pages).toBeGreaterThan(filesMiB * pagesOfMiB * 0.99);
    expect(report.pages.teleported).toBeGreaterThan(filesMiB * pagesOfMiB * 0.5);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
  });
});

describe('A guest without an agent', () => {
  useLab({ rttMs: 10, rateBps: 400e6 });

  it('is moved whole, no faster than --bandwidth says, and what is missing is told', { timeout: 90_000 }, async () => {
    const guest = await Guest.start('vm1', { ...options, data: { ...options.data, filesMiB: 16 }, agentPath: null });
    await guest.run('fill-cache');
    const { report, events } = await guest.teleport('--bandwidth', '50mbit');
    await expectNothingLeft([guest]);
    expect(report).toMatchObject({ agent: null, pages: { teleported: 0 }, bytes: { restored: 0 } });
    expect(report.findings).toMatchObject([{ severity: 'warn', code: 'VMMIG_PREFLIGHT_NO_AGENT' }]);
    expect(report.findings[0]!.message).toMatch(/page cache will be sent/);
    expect(report.pages.sent).toBeGreaterThan(16 * pagesOfMiB);

    const samples = events.filter((event): event is Sample => event.type === 'sample');
    const first = samples.find(({ bytes }) => bytes.wire > report.bytes.wire * 0.2)!;
    const last = samples.findLast(({ bytes }) => bytes.wire < report.bytes.wire * 0.8)!;
    const bitsPerSecond = ((last.bytes.wire - first.bytes.wire) * 8000) / (last.atMs - first.atMs);
    expect(bitsPerSecond / 50e6).toBeGreaterThan(0.93);
    expect(bitsPerSecond / 50e6).toBeLessThan(1.05);
  });
});

function seenPages({ pages }: Sample): number {
  return pages.zero + pages.teleported + pages.sent;
}
