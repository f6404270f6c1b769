/** Somebody waits for the end of a guest that has lost memory, and leaves nothing behind then. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decide, type Ledger, readLedger, writeLedger } from '../../../host-service/commit/index.js';
import { bootId } from '../../../host-service/newLedger.js';
import { concludeDestination } from '../../../host-service/switching/orphans.js';
import { keepVigil } from '../../../host-service/switching/vigil.js';
import { processId } from '../../../hypervisor/index.js';
import { ledgerOf, migrationId, useRunDirectory } from '../commit/runDirectory.js';

const endsWithinMs = 5_000;

describe('A guest that has lost memory', () => {
  const run = useRunDirectory();
  const guest = { name: 'vm1', qmpPath: '/none', agentPath: null };
  let qemu: ChildProcess;

  beforeEach(() => {
    qemu = spawn('sleep', ['60'], { stdio: 'ignore' });
  });

  afterEach(() => void qemu.kill('SIGKILL'));

  const migration = () => ({ runDir: run.path, migrationId, guest });
  const left = () => readdir(run.path);

  /** As a service has left it that was killed while memory was pulled. */
  async function leave(changes: Partial<Ledger> = {}): Promise<void> {
    const process = (await processId(qemu.pid!))!;
    const facts = {
      role: 'destination',
      phase: 'pulling',
      bootId: await bootId(),
      guest: { ...guest, process },
    } as const;
    await writeLedger(run.path, ledgerOf({ ...facts, ...changes }));
    await decide(run.path, migrationId, 'destination', 'run');
  }

  const noted = async () => (await readLedger(run.path, migrationId, 'destination'))!;

  it('is told of until it has been ended, and is forgotten then', async () => {
    await leave();
    expect(await concludeDestination(migration())).toBe(false);
    const kept = keepVigil(migration());
    await expect.poll(async () => (await noted()).phase).toBe('lost');
    expect((await noted()).service).toEqual(await processId(process.pid));
    qemu.kill('SIGKILL');
    await kept;
    expect(await left()).toEqual([]);
  });

  it('is waited for by one service', { timeout: 3 * endsWithinMs }, async () => {
    const other = spawn('sleep', ['60'], { stdio: 'ignore' });
    try {
      await leave({ phase: 'lost', service: await processId(other.pid!) });
      await keepVigil(migration());
      expect(await left()).toEqual([migrationId]);
    } finally {
      other.kill('SIGKILL');
    }
    await expect.poll(async () => await processId(other.pid!), { timeout: endsWithinMs }).toBeNull();
    // Which has died.
    qemu.kill('SIGKILL');
    await keepVigil(migration());
    expect(await left()).toEqual([]);
  });

  it('needs nobody when it has ended', async () => {
    await leave();
    qemu.kill('SIGKILL');
    expect(await concludeDestination(migration())).toBe(true);
    expect(await left()).toEqual([]);
    expect(await concludeDestination(migration())).toBe(true);
    await keepVigil(migration());
  });
});

describe('A domain that has lost memory', () => {
  const run = useRunDirectory();

  it('is not forgotten while its daemon does not answer, and is when that has no such domain', async () => {
    const of = (uri: string) => ({ name: 'vm1', qmpPath: '', agentPath: null, libvirt: { uri, domain: 'vm1' } });
    const leave = async (uri: string) => {
      const facts = { role: 'destination', phase: 'pulling', bootId: await bootId() } as const;
      await writeLedger(run.path, ledgerOf({ ...facts, guest: { ...of(uri), process: null } }));
      return { runDir: run.path, migrationId, guest: of(uri) };
    };
    const silent = await leave('qemu+unix:///system?socket=/nowhere');
    expect(await concludeDestination(silent)).toBe(false);
    // libvirt's own test driver.
    expect(await concludeDestination(await leave('test:///default'))).toBe(true);
    expect(await readdir(run.path)).toEqual([]);
  });
});
