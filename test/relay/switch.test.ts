/** A guest moves between two real QEMUs through the two relays of a switch, and goes on with its memory intact. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type QemuVersion, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import { SwitchDestination } from '../../relay/destination/switchDestination.js';
import { SwitchSource } from '../../relay/source/switchSource.js';

const memoryMiB = 256;
const versions: readonly QemuVersion[] = ['7.2', '10.0'];

describe.each(versions)('QEMU %s', (version) => {
  test('runs a guest elsewhere while its memory follows', { timeout: 120_000 }, async () => {
    const dir = await mkdtemp(join(tmpdir(), 'vmmig-switch-'));
    try {
      await using guest = await startTinyGuest({ dir, name: 'source', qemu: version, memoryMiB });
      {
        await using shell = await waitForBoot(guest.shellPath);
        await shell.output('pattern start 16');
        await shell.output('ticker start');
        while (!/^passes [1-9]/.test(await shell.output('pattern status || true'))) await sleep(100);
      }
      await using there = await startWaiting(version, dir);
      const credentials = { migrationId: 'switch', key: randomBytes(32) };
      const events: string[] = [];
      const common = { credentials, reconnectTimeoutMs: 10_000 };
      let runs: () => void = () => {};
      const running = new Promise<void>((resolve) => {
        runs = resolve;
      });
      const destination = await SwitchDestination.start(
        {
          ...common,
          listen: { host: '127.0.0.1' },
          qemuSocketPath: there.socketPath,
          qemuListens: Promise.resolve(new Map()),
          disks: [],
          heldLimitBytes: 0,
        },
        {
          permitted: () => events.push('permitted'),
          loaded: async () => {
            events.push('loaded');
            while ((await there.qmp.execute('query-status')).status === 'inmigrate') await sleep(1);
            await there.qmp.execute('cont');
            destination.tellRunning();
          },
        },
      );
      await using _destination = destination;
      await using source = await SwitchSource.listen(
        {
          ...common,
          socketPath: join(dir, 'source.sock'),
          connections: 1,
          bandwidthBps: 200e6,
          compress: true,
          store: { limitBytes: 512 * 2 ** 20, spillPath: null },
          memory: null,
        },
        {
          ready: () => {
            events.push('ready');
            source.go();
          },
          running: () => {
            events.push('running');
            runs();
          },
          refused: (message) => events.push(`refused: ${message}`),
        },
      );
      await source.connect({ host: '127.0.0.1', port: destination.port });
      source.begin();
      await using qmp = await QmpClient.connect({ path: guest.qmpPath });
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 50 });
      await qmp.execute('migrate', { uri: `unix:${join(dir, 'source.sock')}` });
      await Promise.race([running, source.finished.then(() => {}), destination.finished]);
      await Promise.all([source.finished, destination.finished]);
      expect(events).toEqual(['ready', 'permitted', 'loaded', 'running']);
      expect((await there.qmp.execute('query-migrate')).status).toBe('completed');
      await using shell = await waitForBoot(there.shellPath);
      expect(await shell.output('pattern status')).toMatch(/errors 0/);
      const { faults, missingPages } = destination.state;
      expect(missingPages).toBe(0);
      expect(faults).toMatchObject({ waiting: 0 });
      expect(source.state).toMatchObject({
        remaining: { zeroPages: 0, bytesPages: 0, referencePages: 0 },
        storedBytes: 0,
      });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

/** A QEMU like the guest's own, waiting for it. */
async function startWaiting(version: QemuVersion, dir: string) {
  const name = 'destination';
  const guest = await startTinyGuest({ dir, name, qemu: version, memoryMiB, incoming: 'defer', extraArgs: ['-S'] });
  const qmp = await QmpClient.connect({ path: guest.qmpPath });
  const capabilities = (['postcopy-ram', 'return-path', 'events', 'late-block-activate'] as const).map(
    (capability) => ({
      capability,
      state: true,
    }),
  );
  await qmp.execute('migrate-set-capabilities', { capabilities });
  const socketPath = join(dir, `${name}.incoming`);
  await qmp.execute('migrate-incoming', { uri: `unix:${socketPath}` });
  return {
    ...{ qmp, socketPath, shellPath: guest.shellPath },
    async [Symbol.asyncDispose]() {
      await qmp.close();
      await guest[Symbol.asyncDispose]();
    },
  };
}
