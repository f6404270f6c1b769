/** A guest whose RAM is a shared memory file moves between two real QEMUs: nothing is copied, and nothing is lost. */
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { ExpectedUseFinder } from '../../host-service/switching/expectedUse.js';
import { openGuestMemory } from '../../host-service/switching/guestMemory.js';
import { inspectGuest } from '../../hypervisor/index.js';
import { type QemuVersion, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import { SwitchSource } from '../../relay/source/switchSource.js';
import { host } from './peers.js';
import { startWaiting } from './postcopy/guests.js';
import { startSwitchDestination } from './switchDestination.js';
import { sharedMemory, temporaryDirectory } from './temporaryDirectory.js';

const memoryMiB = 256;
const versions: readonly QemuVersion[] = ['7.2', '10.0'];

describe.each(versions)('QEMU %s', (version) => {
  test('runs a guest elsewhere while its memory follows from a file', { timeout: 120_000 }, async () => {
    const dir = await temporaryDirectory('switch', sharedMemory);
    const memoryFile = join(dir, 'source.ram');
    const launch = { dir, qemu: version, memoryMiB };
    await using guest = await startTinyGuest({ ...launch, name: 'source', memoryFile });
    let counted = 0;
    {
      await using shell = await waitForBoot(guest.shellPath);
      await shell.output('pattern start 16');
      while (!/^passes [1-9]/.test(await shell.output('pattern status || true'))) await sleep(100);
      counted = Number(await shell.output('count'));
    }
    await using there = await startWaiting({
      ...launch,
      name: 'destination',
      memoryFile: join(dir, 'destination.ram'),
    });
    await using qmp = await QmpClient.connect({ path: guest.qmpPath });
    const inspection = await inspectGuest({ name: 'source', qmpPath: guest.qmpPath, qmp });
    await using memory = await openGuestMemory(qmp, inspection);
    using finder = new ExpectedUseFinder(qmp, inspection, memory!.blocks);
    await finder.find();
    const before = finder.latest;
    if (await finder.watch()) expect(bytesOf(finder.latest.soon)).toBeLessThan(bytesOf(finder.latest.later) / 2);
    const expected = finder.latest;
    // The rings, the top page table, one of each level below, code and stack at least.
    expect(expected.now.length).toBeGreaterThan(12);
    expect(bytesOf(before.soon) + bytesOf(before.later)).toBeGreaterThan(16 * 2 ** 20);
    expect(expected.soon.length).toBeGreaterThan(100);

    const common = { credentials: { migrationId: 'switch', key: randomBytes(32) }, reconnectTimeoutMs: 10_000 };
    const events: string[] = [];
    await using destination = await startSwitchDestination(
      there,
      { ...common, heldLimitBytes: 64 * 2 ** 20 },
      {
        permitted: () => events.push('permitted'),
        loaded: () => events.push('loaded'),
      },
    );
    const socketPath = join(dir, 'source.sock');
    await using source = await SwitchSource.listen(
      {
        ...common,
        socketPath,
        connections: 1,
        bandwidthBps: 200e6,
        compress: true,
        store: { limitBytes: 64 * 2 ** 20, spillPath: null },
        memory: { ...memory!, hintLimitBytes: 64 * 2 ** 20 },
      },
      {
        ready: () => {
          events.push('ready');
          source.go();
        },
        running: () => events.push('running'),
        refused: (message) => events.push(`refused: ${message}`),
      },
    );
    await source.connect({ host, port: destination.port });
    source.begin();
    // The guest goes on writing meanwhile.
    while (!source.state.isSentAhead) await sleep(20);
    const ahead = source.state.counters.pages.sent;
    expect(ahead).toBeGreaterThan(1000);
    expect((await qmp.execute('query-status')).running).toBe(true);

    await qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'x-ignore-shared', state: true }],
    });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
    source.expectUse(expected);
    await source.endAhead(AbortSignal.timeout(10_000));
    await qmp.execute('migrate', { uri: `unix:${socketPath}` });
    await Promise.all([source.finished, destination.finished]);
    expect(events).toEqual(['ready', 'permitted', 'loaded', 'running']);
    expect((await there.qmp.execute('query-migrate')).status).toBe('completed');

    await using shell = await waitForBoot(there.guest.shellPath);
    expect(Number(await shell.output('count'))).toBeGreaterThan(counted);
    const status = await shell.output('pattern status');
    expect(status).toMatch(/errors 0/);
    const { faults, missingPages, counters } = destination.state;
    expect(missingPages).toBe(0);
    expect(faults).toMatchObject({ waiting: 0 });
    const { pages, bytes } = source.state.counters;
    expect(pages.seen).toBe(counters.totalPages);
    // Most of what was sent ahead is still what the guest has.
    expect(pages.sent - ahead, `of ${ahead} pages sent ahead`).toBeLessThan(ahead);
    expect(bytes.stream).toBeLessThan(2 ** 20);
    expect(source.state.remaining).toEqual({ zeroPages: 0, bytesPages: 0, referencePages: 0 });
    // The file is still there, and takes no memory any more.
    expect((await stat(memoryFile)).blocks).toBe(0);
  });
});

function bytesOf(stretches: readonly { readonly lengthBytes: number }[]): number {
  return stretches.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}
