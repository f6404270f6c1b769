import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { afterEach, expect, test } from 'vitest';
import { qemuPid } from '../../hypervisor/monitorProcess.js';
import { inspectProcess, isRunning, processId, sendSignal, waitForEnd } from '../../hypervisor/process.js';
import { endProcess } from '../../hypervisor/source.js';
import { Workshop } from './qemu.js';

const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
});

async function started(script: string): Promise<{ child: ChildProcess; pid: number }> {
  const child = spawn('/bin/sh', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/tmp' });
  children.push(child);
  await once(child.stdout!, 'data');
  return { child, pid: child.pid! };
}

test('a process is known by its pid and start time until it ends', async () => {
  const { child, pid } = await started('echo ready; read -r line');
  const id = (await processId(pid))!;
  expect(await isRunning(id)).toBe(true);
  expect(await isRunning({ ...id, startTime: id.startTime + 1 })).toBe(false);
  expect(await waitForEnd(id, 50)).toBe(false);
  child.stdin!.end('\n');
  expect(await waitForEnd(id, 5_000)).toBe(true);
  expect(await processId(pid)).toBeNull();
});

test('a process that nobody has reaped has ended', async () => {
  // The shell becomes a program that does not wait for the child it inherits.
  const { pid } = await started('sleep 0.1 & echo ready; exec sleep 60');
  const child = Number(await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8'));
  const id = (await processId(child))!;
  expect(await waitForEnd(id, 5_000)).toBe(true);
  expect(await readFile(`/proc/${child}/stat`, 'utf8')).toContain(') Z ');
});

test('a signal reaches the process that is meant, and no successor', async () => {
  const { child, pid } = await started('echo ready; exec sleep 60');
  const id = (await processId(pid))!;
  await sendSignal({ ...id, startTime: id.startTime + 1 }, 'SIGKILL');
  expect(await waitForEnd(id, 100)).toBe(false);
  const ended = once(child, 'exit');
  await sendSignal(id, 'SIGTERM');
  expect(await ended).toEqual([null, 'SIGTERM']);
  await sendSignal(id, 'SIGKILL');
});

test('a process that ignores SIGTERM is killed', async () => {
  const { child, pid } = await started("trap '' TERM; echo ready; while :; do sleep 0.1; done");
  const ended = once(child, 'exit');
  await endProcess((await processId(pid))!, { stepTimeoutMs: 200 });
  expect(await ended).toEqual([null, 'SIGKILL']);
});

test('waiting for the end stops when the signal is aborted', async () => {
  const { pid } = await started('echo ready; exec sleep 60');
  const id = (await processId(pid))!;
  await expect(waitForEnd(id, 60_000, AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'AbortError' });
});

test('a process is described by its command line, directory, binary and owner', async () => {
  const { pid } = await started("echo ready; exec sleep 60 # a comment with 'quotes'");
  const described = { pid, cwd: '/tmp', uid: process.getuid!(), argv: ['sleep', '60'] };
  // It is ready a moment before it becomes another program.
  await expect.poll(() => inspectProcess(pid)).toMatchObject(described);
  await expect(inspectProcess(2 ** 22 + 1)).rejects.toMatchObject({ code: 'VMMIG_INSPECT' });
});

test("a thread that does not own the monitor's socket is not taken for QEMU's", async () => {
  await using workshop = await Workshop.open();
  const guest = await workshop.start('7.2', 'vm1');
  const [cpu] = await guest.qmp.execute('query-cpus-fast');
  expect(await qemuPid(guest.qmpPath, cpu!['thread-id'])).toBe(guest.process.pid);
  await expect(qemuPid(guest.qmpPath, process.pid)).rejects.toMatchObject({ code: 'VMMIG_INSPECT' });
  await expect(qemuPid(guest.qmpPath, 2 ** 22 + 1)).rejects.toMatchObject({ code: 'VMMIG_INSPECT' });
});
