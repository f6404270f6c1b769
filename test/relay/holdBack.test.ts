/** A guest that hardly writes is not stopped before it is time, and most of its memory crosses the link meanwhile. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { GuestShell, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import { pagesAhead } from '../../relay/source/pagesAhead.js';
import { HoldBack, heldBackReadBytes } from '../../relay/source/switch/holdBack.js';
import { SwitchSource } from '../../relay/source/switchSource.js';
import { host } from './peers.js';
import { startWaiting } from './postcopy/guests.js';
import { startSwitchDestination } from './switchDestination.js';
import { temporaryDirectory } from './temporaryDirectory.js';

const isFull = Boolean(process.env.VMMIG_TEST_FULL);
const memoryMiB = 256;

describe('Holding QEMU back', () => {
  test('ends the reading where QEMU may have written the rest already', () => {
    const holdBack = new HoldBack(true, 100);
    expect([holdBack.mayRead(101, 9999), holdBack.heldBackPages(101)]).toEqual([true, 0]);
    expect([holdBack.mayRead(100, 0), holdBack.heldBackPages(100)]).toEqual([false, 100]);
    holdBack.keepUp();
    expect([holdBack.mayRead(1, 9999), holdBack.mayRead(1, 0), holdBack.heldBackPages(1)]).toEqual([false, true, 0]);
    holdBack.letGo();
    expect(holdBack.mayRead(1, 9999)).toBe(true);
    holdBack.keepUp();
    expect(holdBack.mayRead(1, 9999)).toBe(true);
  });

  test('does not concern who does not ask for it', () => {
    const holdBack = new HoldBack(false);
    expect([holdBack.mayRead(0, 9999), holdBack.heldBackPages(0)]).toEqual([true, 0]);
  });

  test('leaves room for all that a socket takes, in pages of zeroes', () => {
    expect(pagesAhead(heldBackReadBytes)).toBeGreaterThan(212_992 / 9);
  });

  test.each(isFull ? ['time', 'converged'] : ['time'])(
    'a guest goes on until it is let go: %s',
    { timeout: 300_000 },
    async (how) => moveHeldBack(await temporaryDirectory('hold'), how === 'converged'),
  );
});

async function moveHeldBack(dir: string, keepsUp: boolean): Promise<void> {
  await using guest = await startTinyGuest({ dir, name: 'source', qemu: '7.2', memoryMiB });
  let counted: number;
  {
    await using shell = await waitForBoot(guest.shellPath);
    while (!/^\d+$/.test(await shell.output('count || true'))) await sleep(100);
    counted = Number(await shell.output('count'));
  }
  await using there = await startWaiting({ dir, name: 'destination', qemu: '7.2', memoryMiB });
  const common = { credentials: { migrationId: 'hold', key: randomBytes(32) }, reconnectTimeoutMs: 20_000 };
  const socketPath = join(dir, 'source.sock');
  await using source = await SwitchSource.listen(
    {
      ...{ ...common, socketPath, connections: 1, bandwidthBps: null, compress: true, memory: null, holdsBack: true },
      store: { limitBytes: 512 * 2 ** 20, spillPath: null },
    },
    { ready: () => void source.go(), running: () => {}, refused: () => {} },
  );
  await using destination = await startSwitchDestination(there, common);
  await source.connect({ host, port: destination.port });
  source.begin();
  await using qmp = await QmpClient.connect({ path: guest.qmpPath });
  // Enough to stop a guest that is idle after one pass. With much more, QEMU would not wait for the end of the first one.
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 20 });
  await qmp.execute('migrate', { uri: `unix:${socketPath}` });
  const isAllSent = () => source.state.heldBackPages > 0 && source.state.remaining.bytesPages === 0;
  while (!isAllSent()) await sleep(20);
  await sleep(1000);
  expect((await qmp.execute('query-status')).running).toBe(true);
  const { heldBackPages, counters } = source.state;
  expect(heldBackPages).toBeLessThanOrEqual(pagesAhead(heldBackReadBytes));
  expect(counters.pages.seen).toBeGreaterThanOrEqual(counters.totalPages - heldBackPages);
  if (keepsUp) {
    source.keepUp();
    while (!source.state.ramEnded) await sleep(20);
  } else source.mayStop();
  await Promise.all([source.finished, destination.finished]);
  await using shell = await GuestShell.connect(there.guest.shellPath);
  expect(Number(await shell.output('count'))).toBeGreaterThan(counted);
}
