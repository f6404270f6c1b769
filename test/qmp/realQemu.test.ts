import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import net from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { QmpClient, type QmpCommands } from '../../qmp/index.js';
import { QEMU_VERSIONS, TestQemu } from './qemu.js';

const starting = { retry: true };

/**
 * Makes QEMU's main loop wait: it opens a FIFO that nobody reads. In-band commands stop; the monitor's own thread goes on.
 *
 * @returns resumes the main loop
 */
async function blockMainLoop(client: QmpClient, directory: string): Promise<() => Promise<void>> {
  const fifo = join(directory, 'fifo');
  await promisify(execFile)('mkfifo', [fifo]);
  const saved = client.execute('pmemsave', { val: 0, size: 4096, filename: fifo });
  saved.catch(() => undefined);
  return async () => {
    const reader = await open(fifo, 'r');
    const { bytesRead } = await reader.read(Buffer.alloc(4096));
    expect(bytesRead).toBe(4096);
    await reader.close();
    await saved;
  };
}

describe.each(QEMU_VERSIONS)('QmpClient with QEMU %s', (version) => {
  const major = Number(version.split('.')[0]);

  it('connects over a unix socket, over TCP and over an open stream', async () => {
    await using qemu = await TestQemu.start(version);
    await using unix = await QmpClient.connect({ path: qemu.path }, starting);
    await using tcp = await QmpClient.connect({ host: '127.0.0.1', port: qemu.port }, starting);
    await using stdio = await QmpClient.connect({ stream: qemu.stdio() });
    for (const client of [unix, tcp, stdio]) {
      expect(client.greeting.version.major).toBe(major);
      expect(client.greeting.package).toMatch(/Debian/);
      expect(client.oobEnabled).toBe(client.greeting.capabilities.includes('oob'));
      expect((await client.execute('query-version')).qemu).toEqual(client.greeting.version);
      expect(await client.execute('query-status')).toMatchObject({ status: 'prelaunch', running: false });
    }
    expect(unix.oobEnabled).toBe(true);
  });

  it('serves one client after the other on the same monitor', async () => {
    await using qemu = await TestQemu.start(version);
    const first = await QmpClient.connect({ path: qemu.path }, { retry: true, oob: false });
    expect(first.oobEnabled).toBe(false);
    await expect(QmpClient.connect({ path: qemu.path }, { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'VMMIG_QMP_GREETING',
      message: expect.stringContaining('another client'),
    });
    await first.close();
    await using second = await QmpClient.connect({ path: qemu.path });
    expect(await second.execute('query-name')).toEqual({});
  });

  it('gives replies, errors and events as QEMU sends them', async () => {
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64', '-name', 'gäst "1" 😀']);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    expect(await client.execute('query-name')).toEqual({ name: 'gäst "1" 😀' });
    expect(await client.execute('query-migrate')).toEqual({});
    expect(await client.execute('human-monitor-command', { 'command-line': 'info mtree -f' })).toMatch(/FlatView/);

    const events = client.events();
    const resumed = client.waitFor('RESUME', { timeoutMs: 10_000 });
    await client.execute('cont');
    expect((await resumed).timestamp.seconds).toBeGreaterThan(1_600_000_000);
    await client.execute('stop');
    expect((await events.next()).value).toMatchObject({ event: 'RESUME', data: {} });
    expect((await events.next()).value).toMatchObject({ event: 'STOP', data: {} });

    await expect(client.execute('migrate-nowhere')).rejects.toMatchObject({
      code: 'VMMIG_QMP_COMMAND',
      command: 'migrate-nowhere',
      errorClass: 'CommandNotFound',
      desc: 'The command migrate-nowhere has not been found',
    });
    await expect(client.execute('qom-get', { path: '/nothing', property: 'x' })).rejects.toMatchObject({
      errorClass: 'DeviceNotFound',
    });
    await expect(client.execute('qom-list', { path: '\ufffe' })).rejects.toMatchObject({ code: 'VMMIG_QMP_PROTOCOL' });
    expect(await client.execute('query-status')).toMatchObject({ status: 'paused' });
  });

  it('reports a guest that quits: the event first, then the end of everything with its cause', async () => {
    await using qemu = await TestQemu.start(version);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    const events = client.events();
    await client.execute('quit');
    expect((await events.next()).value).toMatchObject({ event: 'SHUTDOWN', data: { reason: 'host-qmp-quit' } });
    await expect(events.next()).rejects.toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED', reason: 'disconnect' });
    expect(await client.closed).toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED' });
  });

  it('executes out of band while the main loop and a full queue of commands wait', async () => {
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64']);
    await using client = await QmpClient.connect({ path: qemu.path }, { retry: true, oob: true });
    const resume = await blockMainLoop(client, qemu.directory);
    let answered = 0;
    const waiting = Array.from({ length: 30 }, async () => {
      await client.execute('query-name');
      answered++;
    });
    await expect(client.execute('migrate-pause', {}, { oob: true, timeoutMs: 5_000 })).rejects.toMatchObject({
      code: 'VMMIG_QMP_COMMAND',
      desc: expect.stringContaining('postcopy'),
    });
    expect(answered).toBe(0);
    await resume();
    await Promise.all(waiting);
    await expect(client.execute('query-name', {}, { oob: true })).rejects.toMatchObject({
      desc: 'The command query-name does not support OOB',
    });
  });

  it('interrupts commands at their deadline and at the death of QEMU', async () => {
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64']);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    await blockMainLoop(client, qemu.directory);
    await expect(client.execute('stop', {}, { timeoutMs: 50 })).rejects.toMatchObject({
      reason: 'timeout',
      sent: true,
    });
    const command = client.execute('stop');
    const killed = expect(command).rejects.toMatchObject({ reason: 'disconnect', sent: true });
    qemu.process.kill('SIGKILL');
    await killed;
  });

  it('drops the late reply to a command that was given up', async () => {
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64', '-name', 'vm1']);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    const resume = await blockMainLoop(client, qemu.directory);
    const given = Array.from({ length: 5 }, () => client.execute('query-status', {}, { timeoutMs: 30 }));
    expect((await Promise.allSettled(given)).map(({ status }) => status)).toEqual(given.map(() => 'rejected'));
    const asked = Array.from({ length: 10 }, () => client.execute('query-name'));
    await resume();
    expect(await Promise.all(asked)).toEqual(asked.map(() => ({ name: 'vm1' })));
  });

  it('follows a migration by its events', async () => {
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64']);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    await client.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 10 ** 10, 'downtime-limit': 100 });
    expect(await client.execute('query-migrate-parameters')).toMatchObject({ 'downtime-limit': 100 });
    const sink = net.createServer((socket) => socket.resume()).listen(join(qemu.directory, 'sink'));
    const last = client.waitFor(({ event, data }) => event === 'MIGRATION' && data.status === 'completed', {
      timeoutMs: 20_000,
    });
    const seen = client.events('MIGRATION');
    await client.execute('migrate', { uri: `unix:${join(qemu.directory, 'sink')}` });
    await last;
    const { ram, status } = await client.execute('query-migrate');
    expect(status).toBe('completed');
    expect(ram?.total).toBeGreaterThan(64 * 1024 * 1024);
    expect((await seen.next()).value?.data.status).toBe('setup');
    expect((await seen.next()).value?.data.status).toBe('active');
    sink.close();
  });

  it('knows from the schema what this version supports', async () => {
    await using qemu = await TestQemu.start(version);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    const schema = await client.schema();
    expect(await client.schema()).toBe(schema);
    expect(schema.supports('migrate', 'uri')).toBe(true);
    expect(schema.supports('migrate', 'channels')).toBe(major >= 10);
    expect(schema.supports('migrate', 'channels.addr.transport.socket')).toBe(major >= 10);
    expect(schema.supports('migrate-set-capabilities', 'capabilities.capability.x-ignore-shared')).toBe(true);
    expect(schema.supports('migrate-set-capabilities', 'capabilities.capability.mapped-ram')).toBe(major >= 10);
    expect(schema.supports('migrate-set-parameters', 'avail-switchover-bandwidth')).toBe(major >= 10);
    expect(schema.supports('query-status', 'x')).toBe(false);
    expect(schema.supports('MIGRATION', 'status.postcopy-active')).toBe(true);
    expect(schema.allowsOob('migrate-recover')).toBe(true);
    for (const name of Object.keys(COMMANDS)) expect(schema.supports(name), name).toBe(true);
  });

  it('gets an answer of the declared kind to every query vmmig uses', async () => {
    const devices = [
      '-blockdev',
      'null-co,node-name=disk0,size=1048576',
      '-device',
      'virtio-blk-pci,drive=disk0,id=vd0',
    ];
    await using qemu = await TestQemu.start(version, ['-machine', 'q35', '-m', '64', ...devices]);
    await using client = await QmpClient.connect({ path: qemu.path }, starting);
    for (const [name, kind] of Object.entries(COMMANDS)) {
      if (kind === 'other') continue;
      const answer: unknown = await client.execute(name as 'query-name');
      expect(Array.isArray(answer) ? 'list' : typeof answer, name).toBe(kind);
    }
    expect(await client.execute('query-named-block-nodes')).toMatchObject([{ 'node-name': 'disk0', drv: 'null-co' }]);
    expect((await client.execute('query-block')).map(({ qdev }) => qdev)).toEqual([
      '/machine/peripheral/vd0/virtio-backend',
    ]);
    expect(await client.execute('qom-get', { path: '/machine/peripheral/vd0', property: 'type' })).toBe(
      'virtio-blk-pci',
    );
    const [bus] = await client.execute('query-pci');
    expect(bus?.devices.map(({ qdev_id }) => qdev_id)).toContain('vd0');
    await client.execute('object-add', { 'qom-type': 'iothread', id: 'io1' });
    expect(await client.execute('query-iothreads')).toMatchObject([{ id: 'io1' }]);
    await client.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 50 });
    await expect(client.execute('device_add', { driver: 'virtio-nothing' })).rejects.toMatchObject({
      desc: expect.stringContaining('virtio-nothing'),
    });
  });
});

/** Every typed command, and the kind of its answer where it asks without changing anything. */
const COMMANDS: Record<keyof QmpCommands, 'object' | 'list' | 'other'> = {
  'query-version': 'object',
  'query-qmp-schema': 'list',
  'query-command-line-options': 'list',
  'query-status': 'object',
  'query-name': 'object',
  'query-uuid': 'object',
  'query-kvm': 'object',
  'query-migrate': 'object',
  'query-migrate-capabilities': 'list',
  'query-migrate-parameters': 'object',
  'query-block': 'list',
  'query-named-block-nodes': 'list',
  'query-blockstats': 'list',
  'query-jobs': 'list',
  'query-machines': 'list',
  'query-current-machine': 'object',
  'query-cpus-fast': 'list',
  'query-pci': 'list',
  'query-memdev': 'list',
  'query-chardev': 'list',
  'query-iothreads': 'list',
  cont: 'other',
  stop: 'other',
  quit: 'other',
  system_powerdown: 'other',
  migrate: 'other',
  'migrate-incoming': 'other',
  migrate_cancel: 'other',
  'migrate-continue': 'other',
  'migrate-start-postcopy': 'other',
  'migrate-pause': 'other',
  'migrate-recover': 'other',
  'migrate-set-capabilities': 'other',
  'migrate-set-parameters': 'other',
  'announce-self': 'other',
  'object-add': 'other',
  device_add: 'other',
  'x-query-virtio': 'list',
  'x-query-virtio-status': 'other',
  'x-query-virtio-queue-status': 'other',
  'qom-list': 'other',
  'qom-get': 'other',
  'human-monitor-command': 'other',
};
