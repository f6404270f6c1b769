import { type ChildProcess, spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { expect, onTestFinished, test, vi } from 'vitest';
import { SpareProcessors, spareShare } from '../../../relay/destination/switch/spareProcessors.js';

test('what others have left of the processors is told from their time and this process’s own', () => {
  const before = { atMs: 1000, processors: 4, busyMs: 70_000, ownMs: 500 };
  const after = (busyMs: number, ownMs: number) => ({ atMs: 1100, processors: 4, busyMs: 70_000 + busyMs, ownMs });
  expect(spareShare(before, after(0, 500))).toBe(4);
  expect(spareShare(before, after(400, 500))).toBe(0);
  expect(spareShare(before, after(400, 700))).toBe(2);
  // The kernel counts in ticks, and this process in microseconds.
  expect(spareShare(before, after(100, 607))).toBe(4);
});

test('on a host whose processors are in use only a little is done at a time', async () => {
  const others: ChildProcess[] = [];
  onTestFinished(() => {
    for (const other of others) other.kill('SIGKILL');
  });
  let changes = 0;
  using spare = new SpareProcessors(() => changes++);
  for (let at = 0; at < cpus().length; at++)
    others.push(spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
  const patience = { timeout: 10_000, interval: 5 };
  await vi.waitFor(() => {
    spare.worked(2 ** 30);
    expect(spare.mayWork).toBe(false);
  }, patience);
  const changesUntilThen = changes;
  await vi.waitFor(() => expect(spare.mayWork).toBe(true), patience);
  expect(changes).toBeGreaterThan(changesUntilThen);
});
