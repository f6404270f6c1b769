/** Guests that have Debian's qemu-guest-agent and no agent of vmmig's. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestDirectory } from '../../lab/settings.js';
import { withQemuGa } from '../guest-agent/qga/qemuGa.js';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';

const pagesOfMiB = 256;
const filesMiB = 32;
const options = { memoryMiB: 192, data: { contents: 'random', filesMiB, freeMiB: 16 }, agentPath: null } as const;
/** What the daemon has open, and what runs: nothing of vmmig's. */
const traces = `for f in /proc/$(pidof qemu-ga)/fd/*; do readlink $f; done | grep vmmig- || true
  for p in /proc/[0-9]*; do readlink $p/exe; done | grep vmmig || true; ls -A /run /tmp | grep vmmig || true`;

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-qga-'));
});

afterAll(() => rm(directory, { recursive: true, force: true }));

async function start(daemonOptions = ''): Promise<Guest> {
  const qga = await withQemuGa(directory, join(guestDirectory, 'vm1.qga'), daemonOptions);
  const guest = await Guest.start('vm1', { ...options, ...qga });
  await guest.run('fill-cache');
  return guest;
}

describe('A guest that has qemu-guest-agent and no other', () => {
  useLab(fastWan);

  it('is teleported, and holds nothing afterwards that it did not hold before', { timeout: 120_000 }, async () => {
    const guest = await start();
    const { report } = await guest.teleport();
    expect(report.agent).toMatchObject({ via: 'qemu-ga' });
    expect(report.agent!.pages).toBeGreaterThan(filesMiB * pagesOfMiB * 0.99);
    expect(report.pages.teleported).toBeGreaterThan(filesMiB * pagesOfMiB * 0.95);
    expect(report.findings).toEqual([]);
    expect(await guest.run(traces)).toBe('');
    expect(await guest.run('checksum')).toMatch(/failed 0$/);

    if (isFull) {
      const { report } = await guest.switch();
      expect(report.agent).toMatchObject({ via: 'qemu-ga' });
      expect(await guest.run(traces)).toBe('');
    }
    await expectNothingLeft([guest]);
  });
});

describe('A guest whose qemu-guest-agent is not allowed to run programs', () => {
  useLab(fastWan);

  it('is moved whole, and told what keeps it from more', { timeout: 120_000 }, async () => {
    const guest = await start('--block-rpcs=guest-exec');
    const { report } = await guest.teleport();
    expect(report).toMatchObject({ agent: null, verified: true, pages: { teleported: 0 } });
    expect(report.findings).toMatchObject([{ severity: 'warn', code: 'VMMIG_PREFLIGHT_NO_AGENT' }]);
    expect(report.findings[0]!.message).toContain('does not allow guest-exec');
    await expectNothingLeft([guest]);
  });
});
