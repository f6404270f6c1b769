/**
 * A source relay dies while the guest at the destination still needs memory, which is kept in a file: another one takes
 * its place.
 */
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type OpenMemory, openGuestMemory } from '../../host-service/switching/guestMemory.js';
import { inspectGuest } from '../../hypervisor/index.js';
import { GuestShell, type QemuVersion, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import { SwitchSource, type SwitchSourceHandlers } from '../../relay/source/switchSource.js';
import { readCaptureLog } from '../../relay/store/captureLog.js';
import { Network } from './link/network.js';
import { host } from './peers.js';
import { startWaiting } from './postcopy/guests.js';
import { startSwitchDestination } from './switchDestination.js';
import { sharedMemory, temporaryDirectory } from './temporaryDirectory.js';

const memoryMiB = 256;
const isFull = Boolean(process.env.VMMIG_TEST_FULL);
const versions: readonly QemuVersion[] = isFull ? ['7.2', '10.0'] : ['7.2'];

describe.each(versions)('QEMU %s', (version) => {
  test('goes on with another source, twice, and loses nothing', { timeout: 300_000 }, async () =>
    replaceTwice(version, await temporaryDirectory('source-takeover', sharedMemory)),
  );
});

async function replaceTwice(version: QemuVersion, dir: string): Promise<void> {
  const memoryFile = join(dir, 'source.ram');
  await using guest = await startTinyGuest({ dir, name: 'source', qemu: version, memoryMiB, memoryFile });
  let counted: number;
  {
    await using shell = await waitForBoot(guest.shellPath);
    await shell.output('pattern start 48');
    while (!/^passes [1-9]/.test(await shell.output('pattern status || true'))) await sleep(100);
    counted = Number(await shell.output('count'));
  }
  await using there = await startWaiting({
    ...{ dir, name: 'destination', qemu: version, memoryMiB },
    memoryFile: join(dir, 'destination.ram'),
  });
  await using qmp = await QmpClient.connect({ path: guest.qmpPath });
  const inspection = await inspectGuest({ name: 'source', qmpPath: guest.qmpPath, qmp });
  const openMemory = async (): Promise<OpenMemory> => (await openGuestMemory(qmp, inspection))!;

  const common = { credentials: { migrationId: 'takeover', key: randomBytes(32) }, reconnectTimeoutMs: 20_000 };
  const sourceOptions = {
    ...{ ...common, connections: 2, bandwidthBps: 120e6, compress: false },
    store: { limitBytes: 64 * 2 ** 20, spillPath: null },
  };
  const events: string[] = [];
  const told: Omit<SwitchSourceHandlers, 'ready'> = {
    running: () => events.push('running'),
    refused: (message) => events.push(`refused: ${message}`),
  };
  await using destination = await startSwitchDestination(there, common, { resumed: () => destination.tellRunning() });
  destination.finished.catch(() => {});
  await expect(destination.awaitAnotherSource()).rejects.toMatchObject({ code: 'VMMIG_LINK_CONNECT' });

  const logPath = join(dir, 'capture');
  let memory = await openMemory();
  let network = await Network.to(destination.port);
  const socketPath = join(dir, 'source.sock');
  let source: SwitchSource = await SwitchSource.listen(
    { ...sourceOptions, socketPath, memory: { ...memory, hintLimitBytes: 0, logPath } },
    { ...told, ready: () => void source.go() },
  );
  const die = async () => {
    // Nobody is told.
    network.down();
    source.finished.catch(() => {});
    await source[Symbol.asyncDispose]();
    await memory[Symbol.asyncDispose]();
    await network[Symbol.asyncDispose]();
  };
  await source.connect({ host, port: network.port });
  source.begin();
  await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] });
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await source.endAhead(AbortSignal.timeout(10_000));
  await qmp.execute('migrate', { uri: `unix:${socketPath}` });
  await until(() => events.includes('running'));
  for (const attempt of [1, 2]) {
    await sleep(200);
    await die();
    expect(destination.state.missingPages).toBeGreaterThan(1000);
    await sleep(200);
    await destination.awaitAnotherSource();
    expect(destination.state).toMatchObject({ awaitsSource: true, hasTakenOver: true });
    memory = await openMemory();
    network = await Network.to(destination.port);
    source = await SwitchSource.takeOver(
      { ...sourceOptions, memory: { ...memory, hintLimitBytes: 0 } },
      { ...told, ready: () => {} },
      readCaptureLog(logPath),
      AbortSignal.timeout(10_000),
    );
    await source.reconnect({ host, port: network.port });
    await until(() => events.filter((event) => event === 'running').length > attempt);
    await expectToRun(there.guest.shellPath, counted);
  }
  await Promise.all([source.finished, destination.finished]);
  expect(destination.state).toMatchObject({ missingPages: 0, awaitsSource: false, hasTakenOver: true });
  expect((await there.qmp.execute('query-migrate')).status).toBe('completed');
  await expectToRun(there.guest.shellPath, counted);
  await die();
  expect((await stat(memoryFile)).blocks, 'blocks that the file still takes').toBe(0);
}

async function until(holds: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 60_000; !holds(); await sleep(5))
    if (Date.now() > deadline) throw new Error('it never happened');
}

async function expectToRun(shellPath: string, counted: number): Promise<void> {
  await using shell = await GuestShell.connect(shellPath);
  expect(Number(await shell.output('count'))).toBeGreaterThan(counted);
  expect(await shell.output('pattern status')).toMatch(/errors 0/);
}
