import { writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  acceptMigration,
  applyMigrationSettings,
  cancelMigration,
  type DestinationGuest,
  deriveCommandLine,
  inspectGuest,
  letRun,
  migrationState,
  quitSource,
  resumeAfterFailure,
  startDestination,
  startMigration,
  waitForMigrationEnd,
  waitUntilLoaded,
} from '../../hypervisor/index.js';
import { isRunning } from '../../hypervisor/process.js';
import { binaryOf, type Guest, tinyMachine, versions, Workshop } from './qemu.js';

let workshop: Workshop;
let disposables: AsyncDisposable[];

beforeEach(async () => {
  workshop = await Workshop.open();
  disposables = [];
});
afterEach(async () => {
  for (const one of disposables.reverse()) await one[Symbol.asyncDispose]();
  await workshop[Symbol.asyncDispose]();
});

/** A destination for the guest, started from the source's own command line. */
async function destinationFor(source: Guest, binary: string): Promise<DestinationGuest> {
  const { process, machineType } = await inspectGuest({ name: 'vm1', qmpPath: source.qmpPath, qmp: source.qmp });
  const qmpPath = workshop.file('b.qmp');
  const replacements = [[source.qmpPath, qmpPath]] as const;
  const plan = deriveCommandLine({ ...process, machineType }, { binary, replacements });
  const paths = { logPath: workshop.file('b.log'), pidPath: workshop.file('b.pid'), qmpPath };
  const guest = await startDestination({ argv: plan.argv, cwd: plan.cwd, ...paths });
  disposables.push(guest);
  return guest;
}

/** Something that takes a connection and reads nothing: QEMU stays in the middle of its migration. */
async function stalledReceiver(path: string): Promise<void> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ pauseOnConnect: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  disposables.push({
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

const isRunningGuest = async (guest: Pick<Guest, 'qmp'>): Promise<boolean> =>
  (await guest.qmp.execute('query-status')).running;

describe.each(versions)('with QEMU %s', (version) => {
  test('a guest moves: it is loaded paused, let run, and the source ends', async () => {
    const image = workshop.file('disk.img');
    await writeFile(image, Buffer.alloc(1 << 20));
    const drive = ['-drive', `file=${image},format=raw,if=virtio`];
    const source = await workshop.start(version, 'a', [...tinyMachine, ...drive]);
    const destination = await destinationFor(source, await binaryOf(version));
    const uri = `unix:${workshop.file('stream')}`;
    const before = await acceptMigration(destination, uri);

    await startMigration(source.qmp, uri);
    await waitUntilLoaded(destination);
    expect(await waitForMigrationEnd(source.qmp)).toMatchObject({ status: 'completed', final: true, error: null });
    expect(await isRunningGuest(source)).toBe(false);
    expect(await isRunningGuest(destination), 'nothing runs before it is let run').toBe(false);

    await before.restore();
    destination.release();
    await letRun(destination);
    expect(await isRunningGuest(destination)).toBe(true);
    await quitSource(source.qmp, source.process);
    expect(await isRunning(source.process)).toBe(false);
    expect(await isRunning(destination)).toBe(true);
    await quitSource(null, destination, { stepTimeoutMs: 2_000 });
    expect(await isRunning(destination)).toBe(false);
  });

  test('a guest whose move is given up after it was loaded runs on the source again', async () => {
    const image = workshop.file('disk.img');
    await writeFile(image, Buffer.alloc(1 << 20));
    const source = await workshop.start(version, 'a', [...tinyMachine, '-drive', `file=${image},format=raw,if=virtio`]);
    const destination = await destinationFor(source, await binaryOf(version));
    const uri = `unix:${workshop.file('stream')}`;
    await acceptMigration(destination, uri);
    await startMigration(source.qmp, uri);
    await waitUntilLoaded(destination);
    await waitForMigrationEnd(source.qmp);
    await destination.kill();

    expect(await cancelMigration(source.qmp, { wasRunning: true })).toMatchObject({ status: 'completed' });
    expect(await isRunningGuest(source), 'a completed migration is not undone by cancelling').toBe(false);
    await resumeAfterFailure(source.qmp, { wasRunning: true });
    expect(await isRunningGuest(source)).toBe(true);
  });

  test('cancelling ends a migration that is stuck, with the guest running', async () => {
    const source = await workshop.start(version, 'a');
    const path = workshop.file('stalled');
    await stalledReceiver(path);
    await startMigration(source.qmp, `unix:${path}`);
    await expect(startMigration(source.qmp, `unix:${path}`)).rejects.toMatchObject({ code: 'VMMIG_SOURCE_MIGRATION' });
    expect(await migrationState(source.qmp)).toMatchObject({ final: false });
    expect(await cancelMigration(source.qmp, { wasRunning: true })).toMatchObject({ status: 'cancelled' });
    expect(await isRunningGuest(source)).toBe(true);
  });

  test('a guest that was paused before stays paused after a cancelled migration', async () => {
    const source = await workshop.start(version, 'a');
    await source.qmp.execute('stop');
    const path = workshop.file('stalled');
    await stalledReceiver(path);
    await startMigration(source.qmp, `unix:${path}`);
    await cancelMigration(source.qmp, { wasRunning: false });
    expect(await isRunningGuest(source)).toBe(false);
  });

  test('a migration that cannot connect fails in words, with the guest running', async () => {
    const source = await workshop.start(version, 'a');
    await startMigration(source.qmp, `unix:${workshop.file('nobody')}`).catch(() => undefined);
    const state = await waitForMigrationEnd(source.qmp);
    expect(state.status === 'failed' ? state.error : state.status).toMatch(/connect|none/i);
    await resumeAfterFailure(source.qmp, { wasRunning: true });
    expect(await isRunningGuest(source)).toBe(true);
  });

  test('settings are put back as they were', async () => {
    const source = await workshop.start(version, 'a');
    const settings = async () => ({
      capabilities: await source.qmp.execute('query-migrate-capabilities'),
      parameters: await source.qmp.execute('query-migrate-parameters'),
    });
    await source.qmp.execute('migrate-set-parameters', { 'downtime-limit': 123 });
    const before = await settings();
    const previous = await applyMigrationSettings(source.qmp, {
      capabilities: { events: true, 'return-path': true, 'x-ignore-shared': false },
      parameters: { 'max-bandwidth': 12_345_678, 'downtime-limit': 45 },
    });
    expect((await settings()).parameters).toMatchObject({ 'max-bandwidth': 12_345_678, 'downtime-limit': 45 });
    expect((await settings()).capabilities).toContainEqual({ capability: 'events', state: true });
    expect(previous.settings).toMatchObject({
      capabilities: { events: false, 'return-path': false, 'x-ignore-shared': false },
      parameters: { 'downtime-limit': 123 },
    });
    await previous.restore();
    expect(await settings()).toEqual(before);
  });

  test('settings of which QEMU refuses a part are not left half changed', async () => {
    const source = await workshop.start(version, 'a');
    const wanted = { capabilities: { events: true }, parameters: { 'downtime-limit': -5 } };
    await expect(applyMigrationSettings(source.qmp, wanted)).rejects.toMatchObject({ code: 'VMMIG_QMP_COMMAND' });
    expect(await source.qmp.execute('query-migrate-capabilities')).toContainEqual({
      capability: 'events',
      state: false,
    });
  });

  test('a stream that is none makes loading fail in words', async () => {
    const source = await workshop.start(version, 'a');
    const destination = await destinationFor(source, await binaryOf(version));
    const path = workshop.file('stream');
    await acceptMigration(destination, `unix:${path}`);
    const socket = connect(path);
    socket.on('error', () => undefined);
    socket.end('this is no migration stream');
    const loaded = waitUntilLoaded(destination);
    await expect(loaded).rejects.toMatchObject({
      code: 'VMMIG_DESTINATION_LOAD',
      message: expect.stringMatching(/migration stream/),
    });
  });

  test('waiting for the guest ends when the signal is aborted', async () => {
    const source = await workshop.start(version, 'a');
    const destination = await destinationFor(source, await binaryOf(version));
    await acceptMigration(destination, `unix:${workshop.file('stream')}`);
    const loaded = waitUntilLoaded(destination, { signal: AbortSignal.timeout(200) });
    await expect(loaded).rejects.toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED', reason: 'abort' });
  });

  test('a source whose guest runs is not ended', async () => {
    const source = await workshop.start(version, 'a');
    await expect(quitSource(source.qmp, source.process)).rejects.toMatchObject({ code: 'VMMIG_PROCESS_END' });
    expect(await isRunningGuest(source)).toBe(true);
  });
});

test('a guest moves from QEMU 7.2 to 10.0 as the machine it is', async () => {
  const source = await workshop.start('7.2', 'a');
  const destination = await destinationFor(source, await binaryOf('10.0'));
  const uri = `unix:${workshop.file('stream')}`;
  await acceptMigration(destination, uri);
  await startMigration(source.qmp, uri);
  await waitUntilLoaded(destination);
  await letRun(destination);
  expect(await destination.qmp.execute('qom-get', { path: '/machine', property: 'type' })).toBe('pc-q35-7.2-machine');
});

test('a source that does not answer is ended by signals', async () => {
  const source = await workshop.start('7.2', 'a');
  process.kill(source.process.pid, 'SIGSTOP');
  await quitSource(source.qmp, source.process, { stepTimeoutMs: 300 });
  expect(await isRunning(source.process)).toBe(false);
});
