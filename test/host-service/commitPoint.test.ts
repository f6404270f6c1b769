/** The states around the commit point, where a wrong answer would let a guest run twice, or nowhere. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decide, type Ledger, writeLedger } from '../../host-service/commit/index.js';
import { DestinationSide } from '../../host-service/destinationSide.js';
import { bootId, newLedger } from '../../host-service/newLedger.js';
import { SourceSide } from '../../host-service/sourceSide.js';
import { processId } from '../../hypervisor/process.js';

const migrationId = '20261122-000000-abcdef';
const otherBoot = '00000000-0000-4000-8000-000000000000';
const nobody = { pid: 1, startTime: 1 };
const modes = ['teleport', 'switch'] as const;

describe('The source', () => {
  it('does not hold a guest that has not been copied whole', async () => {
    const held = new SourceSide(() => {}).hold();
    await expect(held).rejects.toMatchObject({ code: 'VMMIG_SERVICE_ORDER' });
  });
});

describe('The destination', () => {
  it('does not let a guest run that it has not loaded', async () => {
    const commit = new DestinationSide(() => {}).commit();
    await expect(commit).rejects.toMatchObject({ code: 'VMMIG_SERVICE_ORDER' });
  });
});

describe.each(modes)('A destination of a %s whose service is gone', (mode) => {
  let runDir: string;
  let guest: Ledger['guest'];

  beforeEach(async () => {
    runDir = await mkdtemp(join(tmpdir(), 'vmmig-commit-'));
    guest = { name: 'vm1', qmpPath: join(runDir, 'nobody.qmp'), agentPath: null, process: null };
  });
  afterEach(() => rm(runDir, { recursive: true, force: true }));

  const ask = async (boot: string | null = null) => {
    const { process: _, ...address } = guest;
    const asked = { guest: address, runDir, migrationId, bootId: boot };
    return (await new DestinationSide(() => {}).ask(asked)).state;
  };

  async function note(process: Ledger['guest']['process'], changes: Partial<Ledger> = {}): Promise<void> {
    const facts = { migrationId, mode, guest, peer: { host: 'hostA', runDir }, link: null };
    await writeLedger(runDir, { ...(await newLedger('destination', facts, process)), ...changes });
  }

  it('knows that a QEMU that ended without being asked has not run the guest, and leaves nothing', async () => {
    await note(nobody);
    expect(await ask()).toBe('ended');
    expect(await readdir(runDir)).toEqual([]);
  });

  it('does not say so of one that ended after it was decided that it runs: it may have written to the disks', async () => {
    await note(nobody);
    await decide(runDir, migrationId, 'destination', 'run');
    expect(await ask()).toBe('doubtful');
  });

  it('knows it of a migration of which nothing is left, if it has been up since that began', async () => {
    expect(await ask(await bootId())).toBe('ended');
    expect(await ask(otherBoot)).toBe('doubtful');
    expect(await ask()).toBe('doubtful');
  });

  it('does not know it when it has restarted', async () => {
    await note(nobody, { bootId: otherBoot });
    expect(await ask(await bootId())).toBe('doubtful');
  });

  it.each([false, true])('ends a QEMU that does not answer, unless that may run the guest (%s)', async (mayRun) => {
    const silent = execa('sleep', ['60'], { reject: false });
    try {
      const process = (await processId(silent.pid!))!;
      await note(process);
      if (mayRun) await decide(runDir, migrationId, 'destination', 'run');
      expect(await ask()).toBe(mayRun ? 'doubtful' : 'ended');
      expect(await processId(silent.pid!)).toEqual(mayRun ? process : null);
    } finally {
      silent.kill('SIGKILL');
      await silent;
    }
  });
});
