/** A network that fails while a guest is being teleported, between two real relays. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { Network } from './link/network.js';
import { until } from './peers.js';
import { pageBytes, RelayRig, type RigOptions } from './rig.js';

const pages = 1024;
const cached = 256;

type Pass = [page: number, content: Buffer | number][];

/** A guest of which a part is on the disk, with a network between the relays. */
async function start(options: RigOptions = {}) {
  const disk = randomBytes(cached * pageBytes);
  let network!: Network;
  const rig = await RelayRig.start(pages, disk, {
    reconnectTimeoutMs: 30_000,
    silenceLimitMs: 800,
    compress: false,
    ...options,
    via: async (port) => {
      network = await Network.to(port);
      return network;
    },
  });
  rig.source.setCacheMap(RelayRig.map([[0, cached, 0]]));
  const guest = Buffer.concat([disk, randomBytes((pages - cached) * pageBytes)]);
  const write = (first: number, count: number): Pass => {
    randomBytes(count * pageBytes).copy(guest, first * pageBytes);
    return read(guest, first, count);
  };
  return { rig, network, guest, write };
}

function read(guest: Buffer, first: number, count: number): Pass {
  const page = (at: number) => Buffer.from(guest.subarray(at * pageBytes, (at + 1) * pageBytes));
  return Array.from({ length: count }, (_, at) => [first + at, page(first + at)]);
}

const cuts: [string, (network: Network) => void][] = [
  ['all connections end', (network) => network.cut()],
  ['all connections are reset', (network) => network.cut('resetAndDestroy')],
  ['one connection ends', (network) => network.cutOne()],
  [
    'nothing arrives any more for a while',
    (network) => {
      network.stall();
      setTimeout(() => network.heal(), 1500);
    },
  ],
  [
    'nothing and nobody gets through for a while',
    (network) => {
      network.down();
      setTimeout(() => network.heal(), 700);
    },
  ],
];

describe('a teleport whose network fails', () => {
  test.each(cuts)(
    'goes on when %s: in the first pass, in a later one, and when the guest has stopped',
    async (_, cut) => {
      const { rig, network, guest, write } = await start();
      const passes = [
        read(guest, 0, pages / 2),
        read(guest, pages / 2, pages / 2),
        write(100, 300),
        write(200, 50),
        [],
      ];
      let reconnects = 0;
      await rig.send(passes, async (pass) => {
        if (pass === 2 || pass === 4) await until(() => rig.source.state.reconnects > reconnects);
        if (pass === 2 || pass === 4) reconnects = rig.source.state.reconnects;
        if (pass === 1 || pass === 3 || pass === 4) cut(network);
      });
      await rig.moved();
      expect(rig.memory.equals(guest)).toBe(true);
      expect(rig.tail.toString()).toContain('device state');
      expect(rig.source.state.reconnects).toBeGreaterThanOrEqual(2);
    },
  );

  test('has QEMU wait meanwhile, and keeps no more than the window', async () => {
    const { rig, network } = await start({ reconnectTimeoutMs: 60_000 });
    network.down();
    await until(() => !rig.source.state.isConnected);
    const page = randomBytes(pageBytes);
    const passes = Array.from({ length: 60 }, () => Array.from({ length: pages }, (_, at): Pass[0] => [at, page]));
    const sending = rig.send(passes).catch(() => {});
    let streamed = -1;
    while (rig.source.state.counters.bytes.stream !== streamed) {
      streamed = rig.source.state.counters.bytes.stream;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(streamed).toBeLessThan(40 * 1024 * 1024);
    expect(rig.source.state.backlogBytes).toBeLessThan(33 * 1024 * 1024);
    rig.source.abort();
    await expect(rig.source.finished).rejects.toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
    await sending;
  });

  test('learns after the cut that the destination has found its memory equal', async () => {
    const { rig, network, guest } = await start();
    await rig.send([read(guest, 0, pages), []], async () => {
      await until(() => rig.source.state.backlogBytes === 0);
      network.deafen();
    });
    await rig.destination.finished;
    await until(() => !rig.source.state.isConnected);
    network.heal();
    await rig.moved();
    expect(rig.memory.equals(guest)).toBe(true);
  });

  test('ends on both sides when the time to look for each other is over', async () => {
    const { rig, network, guest } = await start({ reconnectTimeoutMs: 400 });
    const sending = rig.send([read(guest, 0, pages), []], () => network.down()).catch(() => {});
    for (const { finished } of [rig.source, rig.destination])
      await expect(finished).rejects.toMatchObject({
        code: 'VMMIG_LINK_LOST',
        message: expect.stringContaining('could not be reached again'),
      });
    await sending;
  });

  test('ends at once where nobody is to look', async () => {
    const { rig, network, guest } = await start({ reconnectTimeoutMs: 0, silenceLimitMs: 60_000 });
    const sending = rig.send([read(guest, 0, pages), []], () => network.down()).catch(() => {});
    for (const { finished } of [rig.source, rig.destination])
      await expect(finished).rejects.toMatchObject({ code: 'VMMIG_LINK_LOST' });
    expect(rig.source.state.reconnects).toBe(0);
    await sending;
  });

  test('lets a guest that has stopped go on at the source long before that', async () => {
    const { rig, network, guest } = await start({ stoppedPatienceMs: 300 });
    const sending = rig.send([read(guest, 0, pages), []], () => network.down()).catch(() => {});
    await expect(rig.source.finished).rejects.toMatchObject({
      code: 'VMMIG_LINK_LOST',
      message: expect.stringContaining('had stopped'),
    });
    await sending;
  });

  test('lets it go on also when it stops during the cut', async () => {
    const { rig, network } = await start({ stoppedPatienceMs: 300 });
    network.down();
    await until(() => !rig.source.state.isConnected);
    rig.source.guestStopped();
    await expect(rig.source.finished).rejects.toMatchObject({ code: 'VMMIG_LINK_LOST' });
  });
});
