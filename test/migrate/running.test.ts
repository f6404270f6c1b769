import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { cancelMigration } from '../../migrate/cancel.js';
import { claim, runningMigration } from '../../migrate/running.js';
import { start, useStateDirectory } from './temporary.js';

const state = useStateDirectory();
const directory = () => join(state.path, 'running');

async function claimedBy(pid: number, processStart: string, vm = start.vm): Promise<void> {
  await mkdir(directory(), { recursive: true });
  await writeFile(join(directory(), `${vm}.json`), JSON.stringify({ ...start, vm, id: 'other', pid, processStart }));
}

async function startOf(pid: number): Promise<string> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8');
  return line.slice(line.lastIndexOf(')') + 2).split(' ')[19]!;
}

describe('a claim', () => {
  test('is seen by others, for its owner alone to read, until it is given up', async () => {
    expect(await runningMigration('vm1')).toBeNull();
    {
      await using _ = await claim(start);
      expect(await runningMigration('vm1')).toMatchObject({ id: start.id, vm: 'vm1', to: 'hostB', pid: process.pid });
      expect((await stat(join(directory(), 'vm1.json'))).mode & 0o777).toBe(0o600);
      expect((await stat(directory())).mode & 0o777).toBe(0o700);
      expect(await runningMigration('vm2')).toBeNull();
    }
    expect(await runningMigration('vm1')).toBeNull();
    expect(await readdir(directory())).toEqual([]);
  });

  test('is respected while its process lives', async () => {
    await using _ = await claim(start);
    await expect(claim({ ...start, id: 'second' })).rejects.toMatchObject({
      name: 'VmmigError',
      code: 'VMMIG_ALREADY_MIGRATING',
      message: expect.stringMatching(new RegExp(`hostB.*${process.pid}.*vmmig cancel vm1`)),
      retryable: true,
    });
    expect((await runningMigration('vm1'))?.id).toBe(start.id);
    await using other = await claim({ ...start, vm: 'vm2' });
    expect(other).toBeDefined();
  });

  test('is respected, too, when another process holds it', async () => {
    const child = execa('sleep', ['30'], { reject: false });
    try {
      await claimedBy(child.pid!, await startOf(child.pid!));
      await expect(claim(start)).rejects.toMatchObject({ code: 'VMMIG_ALREADY_MIGRATING' });
    } finally {
      child.kill('SIGKILL');
      await child;
    }
    await using _ = await claim(start);
    expect((await runningMigration('vm1'))?.id).toBe(start.id);
  });

  test('of a later process with the same number is stale', async () => {
    await claimedBy(process.pid, '1');
    expect(await runningMigration('vm1')).toBeNull();
    await using _ = await claim(start);
    expect((await runningMigration('vm1'))?.id).toBe(start.id);
  });

  test.each(['', '{', '{"pid":"x"}', '{}', '[]', '{"pid":-1}'])('that reads %j is stale', async (text) => {
    await mkdir(directory(), { recursive: true });
    await writeFile(join(directory(), 'vm1.json'), text);
    expect(await runningMigration('vm1')).toBeNull();
    await using _ = await claim(start);
    expect((await runningMigration('vm1'))?.id).toBe(start.id);
  });

  test('of two at the same time is given to one', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, (_, at) => claim({ ...start, id: `m${at}` })));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'VMMIG_ALREADY_MIGRATING' });
  });

  test('of a guest with any name stays in its directory', async () => {
    for (const vm of ['../../etc/passwd', 'a/b', 'ü mlaut', '.', '..']) {
      await using _ = await claim({ ...start, vm });
      expect((await runningMigration(vm))?.vm).toBe(vm);
      expect(await readdir(directory())).toHaveLength(1);
    }
  });
});

describe('a cancellation', () => {
  test('of a guest that nobody moves says so', async () => {
    await expect(cancelMigration('vm1')).rejects.toMatchObject({ code: 'VMMIG_USAGE_NOT_MIGRATING' });
    await claimedBy(process.pid, '1');
    await expect(cancelMigration('vm1')).rejects.toMatchObject({ code: 'VMMIG_USAGE_NOT_MIGRATING' });
  });

  test('asks the process that moves it, once and politely, and waits for its end', async () => {
    const script =
      "process.on('SIGTERM', () => setTimeout(() => process.exit(0), 100)); console.log('ready'); setInterval(() => {}, 1000)";
    const child = execa(process.execPath, ['-e', script], { reject: false, buffer: false });
    try {
      await new Promise((resolve) => child.stdout?.once('data', resolve));
      await claimedBy(child.pid!, await startOf(child.pid!));
      const cancelled = cancelMigration('vm1');
      const { exitCode, signal } = await child;
      expect({ exitCode, signal }).toEqual({ exitCode: 0, signal: undefined });
      expect(await cancelled).toEqual({ id: 'other', result: 'unknown', report: null });
    } finally {
      child.kill('SIGKILL');
    }
  });
});
