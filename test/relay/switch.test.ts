/** A guest moves between two real QEMUs through the two relays of a switch, and goes on with its memory intact. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type QemuVersion, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import { SwitchSource } from '../../relay/source/switchSource.js';
import { host } from './peers.js';
import { startWaiting } from './postcopy/guests.js';
import { startSwitchDestination } from './switchDestination.js';
import { temporaryDirectory } from './temporaryDirectory.js';

const memoryMiB = 256;
const versions: readonly QemuVersion[] = ['7.2', '10.0'];

describe.each(versions)('QEMU %s', (version) => {
  test('runs a guest elsewhere while its memory follows', { timeout: 120_000 }, async () => {
    const dir = await temporaryDirectory('switch');
    await using guest = await startTinyGuest({ dir, name: 'source', qemu: version, memoryMiB });
    {
      await using shell = await waitForBoot(guest.shellPath);
      await shell.output('pattern start 16');
      await shell.output('ticker start');
      while (!/^passes [1-9]/.test(await shell.output('pattern status || true'))) await sleep(100);
    }
    await using there = await startWaiting({ dir, name: 'destination', qemu: version, memoryMiB });
    const credentials = { migrationId: 'switch', key: randomBytes(32) };
    const events: string[] = [];
    const common = { credentials, reconnectTimeoutMs: 10_000 };
    let runs: () => void = () => {};
    const running = new Promise<void>((resolve) => {
      runs = resolve;
    });
    await using destination = await startSwitchDestination(there, common, {
      permitted: () => events.push('permitted'),
      loaded: () => events.push('loaded'),
    });
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
    await source.connect({ host, port: destination.port });
    source.begin();
    await using qmp = await QmpClient.connect({ path: guest.qmpPath });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 50 });
    await qmp.execute('migrate', { uri: `unix:${join(dir, 'source.sock')}` });
    await Promise.race([running, source.finished.then(() => {}), destination.finished]);
    await Promise.all([source.finished, destination.finished]);
    expect(events).toEqual(['ready', 'permitted', 'loaded', 'running']);
    expect((await there.qmp.execute('query-migrate')).status).toBe('completed');
    await using shell = await waitForBoot(there.guest.shellPath);
    expect(await shell.output('pattern status')).toMatch(/errors 0/);
    const { faults, missingPages } = destination.state;
    expect(missingPages).toBe(0);
    expect(faults).toMatchObject({ waiting: 0 });
    expect(source.state).toMatchObject({
      remaining: { zeroPages: 0, bytesPages: 0, referencePages: 0 },
      storedBytes: 0,
    });
  });
});
