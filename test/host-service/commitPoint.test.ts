/** The states around the commit point, where a wrong answer would let a guest run twice, or nowhere. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DestinationSide } from '../../host-service/destinationSide.js';
import { bootId } from '../../host-service/newLedger.js';
import { SourceSide } from '../../host-service/sourceSide.js';
import { processId } from '../../hypervisor/process.js';

const migrationId = '20261122-000000-abcdef';
const guest = { name: 'vm1', agentPath: null };
const never = new AbortController().signal;

describe('The source', () => {
  it('does not hold a guest that has not been copied whole', () => {
    expect(() => new SourceSide(() => {}).hold()).toThrow(expect.objectContaining({ code: 'VMMIG_SERVICE_ORDER' }));
  });
});

describe('The destination', () => {
  let runDir: string;
  let marker: string;

  beforeAll(async () => {
    runDir = await mkdtemp(join(tmpdir(), 'vmmig-commit-'));
    await mkdir(join(runDir, migrationId));
    marker = join(runDir, migrationId, 'committing');
  });

  afterAll(() => rm(runDir, { recursive: true, force: true }));

  function resolve(process: { pid: number; startTime: number } | null, bootId: string | null = null) {
    const qmpPath = join(runDir, 'nobody.qmp');
    return new DestinationSide(() => {}).resolve({ ...guest, qmpPath, process, bootId, runDir, migrationId }, never);
  }

  it('does not let a guest run that it has not loaded', async () => {
    const commit = new DestinationSide(() => {}).commit();
    await expect(commit).rejects.toMatchObject({ code: 'VMMIG_SERVICE_ORDER' });
  });

  it('knows that a QEMU that ended without being asked has not run the guest', async () => {
    expect(await resolve({ pid: 1, startTime: -1 })).toBe('ended');
    expect(await resolve(null)).toBe('ended');
  });

  it('does not say so of a QEMU that ended after it was asked: it may have written to the disks', async () => {
    await writeFile(marker, '');
    expect(await resolve({ pid: 1, startTime: -1 })).toBe('unknown');
    await rm(marker);
  });

  it('does not say so when its host has restarted, and nobody there remembers what was asked', async () => {
    expect(await resolve({ pid: 1, startTime: -1 }, await bootId())).toBe('ended');
    expect(await resolve({ pid: 1, startTime: -1 }, '00000000-0000-4000-8000-000000000000')).toBe('unknown');
  });

  it('leaves a QEMU alone that does not answer', async () => {
    const silent = execa('sleep', ['60'], { reject: false });
    try {
      const process = (await processId(silent.pid!))!;
      expect(await resolve(process)).toBe('unknown');
      expect(await processId(silent.pid!)).toEqual(process);
    } finally {
      silent.kill('SIGKILL');
      await silent;
    }
  });
});
