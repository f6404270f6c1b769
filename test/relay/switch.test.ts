/** A guest moves between two real QEMUs through the two relays of a switch, and goes on with its memory intact. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type QemuVersion, type RunningGuest, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { QmpClient } from '../../qmp/index.js';
import type { SwitchDestination } from '../../relay/destination/switchDestination.js';
import { SwitchSource } from '../../relay/source/switchSource.js';
import { Network } from './link/network.js';
import { host, until } from './peers.js';
import { type Resumable, startWaiting } from './postcopy/guests.js';
import { startSwitchDestination } from './switchDestination.js';
import { temporaryDirectory } from './temporaryDirectory.js';

const memoryMiB = 256;
const versions: readonly QemuVersion[] = ['7.2', '10.0'];

interface Switched {
  readonly guest: RunningGuest;
  readonly there: Resumable;
  readonly network: Network;
  readonly source: SwitchSource;
  readonly destination: SwitchDestination;
  readonly qmp: QmpClient;
  /** What the relays have told. */
  readonly events: readonly string[];
  /** Has QEMU migrate. */
  setOut(): Promise<void>;
}

/** A guest that keeps writing a pattern, and two relays that have met. */
async function withSwitch(
  version: QemuVersion,
  act: (rig: Switched) => Promise<void>,
  reconnectTimeoutBeforeMs = 4_000,
): Promise<void> {
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
  const common = { credentials, reconnectTimeoutMs: 10_000, reconnectTimeoutBeforeMs };
  const events: string[] = [];
  await using destination = await startSwitchDestination(there, common, {
    permitted: () => events.push('permitted'),
    loaded: () => events.push('loaded'),
  });
  const socketPath = join(dir, 'source.sock');
  const store = { limitBytes: 512 * 2 ** 20, spillPath: null };
  await using source = await SwitchSource.listen(
    { ...common, socketPath, connections: 1, bandwidthBps: 200e6, compress: true, store, memory: null },
    {
      ready: () => {
        events.push('ready');
        source.go();
      },
      running: () => events.push('running'),
      refused: (message) => events.push(`refused: ${message}`),
    },
  );
  await using network = await Network.to(destination.port);
  await source.connect({ host, port: network.port });
  source.begin();
  await using qmp = await QmpClient.connect({ path: guest.qmpPath });
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 50 });
  const setOut = async () => void (await qmp.execute('migrate', { uri: `unix:${socketPath}` }));
  await act({ guest, there, network, source, destination, qmp, events, setOut });
}

async function expectMoved({ source, destination, there, events }: Switched): Promise<void> {
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
}

describe.each(versions)('QEMU %s', (version) => {
  test('runs a guest elsewhere while its memory follows', { timeout: 120_000 }, async () => {
    await withSwitch(version, async (rig) => {
      await rig.setOut();
      await expectMoved(rig);
    });
  });
});

test('a guest whose network is down runs on where it is, and goes when that is up again', {
  timeout: 120_000,
}, async () => {
  await withSwitch(
    '10.0',
    async (rig) => {
      const { network, source, qmp, events } = rig;
      network.down();
      await until(() => !source.state.isConnected);
      await rig.setOut();
      await sleep(2_000);
      expect(await qmp.execute('query-status')).toMatchObject({ running: true });
      expect(events).toEqual([]);
      network.heal();
      await expectMoved(rig);
      expect(source.state.reconnects).toBeGreaterThan(0);
    },
    60_000,
  );
});

test('a guest stays where it is when its network is down for too long', { timeout: 120_000 }, async () => {
  await withSwitch('10.0', async ({ network, source, qmp, setOut, events }) => {
    await setOut();
    await until(() => source.state.counters.pages.seen > 0);
    network.down();
    await expect(source.finished).rejects.toMatchObject({ code: 'VMMIG_LINK_LOST' });
    expect(events).toEqual([]);
    await expect.poll(async () => (await qmp.execute('query-migrate')).status).toBe('failed');
    expect(await qmp.execute('query-status')).toMatchObject({ running: true });
  });
});
