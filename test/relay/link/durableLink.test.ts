import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../../relay/errors.js';
import { DurableLink } from '../../../relay/link/durableLink.js';
import { frameType } from '../../../relay/link/frames.js';
import { UnknownSessionError } from '../../../relay/link/greeting.js';
import { dial, dialAgain, listen } from '../../../relay/link/handshake.js';
import { TokenBucket } from '../../../relay/link/tokenBucket.js';
import { connectedPair, frameBytes, host, isListening, newCredentials, until } from '../peers.js';
import { durablePair, payloadOf, type Side, side } from './durablePair.js';

const sequences = (side: Side) => side.ordered.map(({ sequence }) => sequence);
const upTo = (count: number) => Array.from({ length: count }, (_, at) => at);

describe('a durable link', () => {
  test('hands over ordered frames in their order, and others as they arrive', async () => {
    await using pair = await durablePair();
    for (let at = 0; at < 200; at++) {
      pair.source.link.sendOrdered(frameType.batch, payloadOf(`batch ${at}`, (at * 7919) % 60_000));
      if (at % 10 === 0) pair.destination.link.send(frameType.acknowledge, at, payloadOf(`ack ${at}`));
    }
    await until(() => pair.destination.ordered.length === 200 && pair.source.immediate.length === 20);
    expect(sequences(pair.destination)).toEqual(upTo(200));
    expect(pair.destination.ordered.map(({ text }) => text)).toEqual(upTo(200).map((at) => `batch ${at}`));
    expect(pair.source.immediate.map(({ text }) => text)).toEqual(upTo(20).map((at) => `ack ${at * 10}`));
    await until(() => pair.source.link.unreceivedBytes === 0 && pair.destination.link.unreceivedBytes === 0);
    expect([...pair.source.interrupted, ...pair.destination.interrupted]).toEqual([]);
  });

  test.each(['destroy', 'resetAndDestroy'] as const)('goes on after a cut (%s)', async (how) => {
    await using pair = await durablePair();
    for (let at = 0; at < 100; at++) pair.source.link.sendOrdered(frameType.batch, payloadOf('', 100_000));
    pair.network.cut(how);
    for (let at = 0; at < 100; at++) pair.destination.link.sendUrgent(frameType.acknowledge, payloadOf(`ack ${at}`));
    await until(() => pair.destination.ordered.length === 100 && pair.source.immediate.length === 100);
    expect(sequences(pair.destination)).toEqual(upTo(100));
    expect(pair.source.immediate.map(({ text }) => text)).toEqual(upTo(100).map((at) => `ack ${at}`));
    expect(pair.source.link.reconnects).toBe(1);
    expect(pair.destination.link.reconnects).toBe(1);
    expect(pair.source.interrupted).toHaveLength(1);
    expect(pair.source.resumedMs).toHaveLength(1);
    expect(pair.source.link.isConnected).toBe(true);
    expect([...pair.source.lost, ...pair.destination.lost]).toEqual([]);
  });

  test('takes no more bulk data than the network holds while it is held, and all of it afterwards', async () => {
    await using pair = await durablePair({ silenceLimitMs: 300 });
    const { source, destination } = pair;
    destination.link.holdBulk(true);
    for (let at = 0; at < 400; at++) source.link.sendOrdered(frameType.batch, payloadOf('', 100_000));
    source.link.sendUrgent(frameType.answer, payloadOf('urgent'));
    await until(() => destination.immediate.length === 1);
    // Longer than a connection may be silent that is not held.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const early = destination.ordered.length;
    expect(early).toBeLessThan(200);
    destination.link.holdBulk(false);
    await until(() => destination.ordered.length === 400);
    expect(sequences(destination)).toEqual(upTo(400));
    expect([...source.interrupted, ...destination.interrupted]).toEqual([]);
  });

  test('goes on after one of its connections was cut', async () => {
    await using pair = await durablePair();
    for (let at = 0; at < 50; at++) pair.source.link.sendOrdered(frameType.batch, payloadOf('', 50_000));
    pair.network.cutOne();
    await until(() => pair.source.link.reconnects === 1 && pair.destination.ordered.length === 50);
    expect(sequences(pair.destination)).toEqual(upTo(50));
  });

  test('notices a network that has fallen silent, and goes on when it is whole again', async () => {
    await using pair = await durablePair({ silenceLimitMs: 600 });
    await until(() => pair.source.link.rttMs > 0 || pair.destination.link.rttMs > 0);
    pair.network.stall();
    for (let at = 0; at < 20; at++) pair.source.link.sendOrdered(frameType.batch, payloadOf('', 10_000));
    pair.destination.link.sendUrgent(frameType.acknowledge, payloadOf('urgent'));
    const startMs = performance.now();
    await until(() => pair.source.interrupted.length > 0 && pair.destination.interrupted.length > 0);
    expect(performance.now() - startMs).toBeLessThan(2000);
    expect(pair.source.interrupted[0]).toMatchObject({
      code: 'VMMIG_LINK_LOST',
      message: expect.stringContaining('silent'),
    });
    expect(pair.source.link.isConnected).toBe(false);
    expect(pair.source.link.isOpenForBulk).toBe(false);
    pair.network.heal();
    await until(() => pair.destination.ordered.length === 20 && pair.source.immediate.length === 1);
    expect(sequences(pair.destination)).toEqual(upTo(20));
    expect(pair.source.resumedMs[0]).toBeGreaterThan(0);
  });

  test('drops the old connections when only the source has noticed that they are dead', async () => {
    await using pair = await durablePair({ silenceLimitMs: 60_000 });
    pair.network.stall();
    pair.source.link.sendOrdered(frameType.batch, payloadOf('held up', 100_000));
    pair.network.heal();
    // The first of the source's connections is cut; what the destination has of the others is dead, and it does not know.
    pair.network.cutOne();
    await until(() => pair.source.link.reconnects === 1 && pair.destination.ordered.length === 1);
    expect(pair.destination.interrupted).toHaveLength(1);
    expect(pair.destination.link.reconnects).toBe(1);
    expect(pair.network.openConnections).toBe(3);
  });

  test('delivers every frame once, in order, over twenty cuts with both directions busy', async () => {
    await using pair = await durablePair({ connections: 3 });
    const random = randomFrom(42);
    const counts = { batches: 0, acks: 0, resends: 0 };
    let maxUnreceived = 0;
    for (let cut = 0; cut < 20; cut++) {
      const endMs = performance.now() + 20 + random() * 60;
      while (performance.now() < endMs) {
        for (let some = 0; some < 5 && pair.source.link.unreceivedBytes < 4e6; some++) {
          pair.source.link.sendOrdered(frameType.batch, payloadOf(`${counts.batches++}`, random() * 60_000));
          if (some === 0)
            pair.source.link.send(frameType.resend, counts.resends, payloadOf(`${counts.resends++}`, 9000));
          pair.destination.link.send(frameType.acknowledge, counts.acks, payloadOf(`${counts.acks++}`));
        }
        maxUnreceived = Math.max(maxUnreceived, pair.source.link.unreceivedBytes);
        await new Promise((resolve) => setTimeout(resolve, random() * 8));
      }
      if (random() < 0.3) pair.network.cutOne();
      else pair.network.cut(random() < 0.5 ? 'destroy' : 'resetAndDestroy');
      // Some cuts come while the last one is still being mended.
      if (random() < 0.5) await until(() => pair.source.link.isConnected);
    }
    await until(() => pair.destination.ordered.length >= counts.batches && pair.source.immediate.length >= counts.acks);
    await until(() => pair.destination.immediate.length >= counts.resends);
    await until(() => pair.source.link.unreceivedBytes === 0 && pair.destination.link.unreceivedBytes === 0);
    expect(pair.destination.ordered.map(({ text }) => text)).toEqual(upTo(counts.batches).map(String));
    expect(pair.source.immediate.map(({ text }) => text)).toEqual(upTo(counts.acks).map(String));
    const resends = pair.destination.immediate.map(({ text }) => Number(text)).sort((left, right) => left - right);
    expect(resends).toEqual(upTo(counts.resends));
    expect(maxUnreceived).toBeLessThan(5e6);
    expect(pair.source.link.reconnects).toBeGreaterThanOrEqual(10);
    expect([...pair.source.lost, ...pair.destination.lost]).toEqual([]);
    expect(pair.source.link.bytesOnWire).toBeGreaterThan(counts.batches * 25_000);
  });

  test('keeps what the peer has not received, and forgets the rest', async () => {
    await using pair = await durablePair();
    pair.network.stall();
    for (let at = 0; at < 10; at++) pair.source.link.sendOrdered(frameType.batch, payloadOf('', 100_000));
    expect(pair.source.link.unreceivedBytes).toBe(10 * 100_009);
    await until(() => pair.source.interrupted.length > 0);
    pair.network.heal();
    await until(() => pair.source.link.unreceivedBytes === 0);
    expect(pair.destination.ordered).toHaveLength(10);
  });

  test('says when it takes no more bulk data, and when it does again', async () => {
    await using pair = await durablePair();
    let count = 0;
    while (pair.source.link.isOpenForBulk && count < 1000) {
      pair.source.link.sendOrdered(frameType.batch, payloadOf('', 50_000));
      count++;
    }
    expect(count).toBeLessThan(100);
    await until(() => pair.source.drained > 0);
    expect(pair.source.link.isOpenForBulk).toBe(true);
    await until(() => pair.destination.ordered.length === count);
  });

  test('takes no more while so many frames are under way that the peer could not put them in order', async () => {
    await using pair = await durablePair();
    let sent = 0;
    while (pair.source.link.isOpenForBulk && sent < 100_000) {
      pair.source.link.sendOrdered(frameType.batch, Buffer.alloc(1));
      sent++;
    }
    expect(sent).toBe(1024);
    await expect.poll(() => pair.source.link.isOpenForBulk).toBe(true);
  });

  test('keeps to a bandwidth cap', async () => {
    const bitsPerSecond = 25_000_000;
    await using pair = await durablePair({ source: { bucket: new TokenBucket(bitsPerSecond) } });
    const { link } = pair.source;
    for (let count = 0; count < 30; count++) link.sendOrdered(frameType.batch, payloadOf('', 200_000));
    await until(() => pair.destination.ordered.length > 0);
    const [startBytes, startMs] = [link.unreceivedBytes, performance.now()];
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const bits = (startBytes - link.unreceivedBytes) * 8;
    // What is received is told frame by frame.
    expect(bits / ((performance.now() - startMs) / 1000)).toBeLessThan(1.3 * bitsPerSecond);
    expect(bits / ((performance.now() - startMs) / 1000)).toBeGreaterThan(0.7 * bitsPerSecond);
    link.fail(new RelayError('VMMIG_RELAY_ABORTED', 'measured'));
  });

  test('is lost when the peer stays away for too long', async () => {
    await using pair = await durablePair({ reconnectTimeoutMs: 500 });
    pair.network.down();
    await until(() => pair.source.lost.length > 0 && pair.destination.lost.length > 0);
    for (const { lost, link } of [pair.source, pair.destination]) {
      expect(lost).toMatchObject([
        { code: 'VMMIG_LINK_LOST', message: expect.stringContaining('could not be reached') },
      ]);
      expect(link.isConnected).toBe(false);
    }
    expect(await isListening(pair.listener.port)).toBe(false);
  });

  test('is lost at once, as any link, when it was not told to endure', async () => {
    await using pair = await durablePair({ endures: false });
    pair.network.cut();
    await until(() => pair.source.lost.length > 0 && pair.destination.lost.length > 0);
    expect(pair.source.lost).toMatchObject([{ code: 'VMMIG_LINK_LOST' }]);
    expect(pair.source.interrupted).toEqual([]);
  });

  test('is lost at once when the peer closes its end, which flushes what it had sent', async () => {
    await using pair = await durablePair();
    for (let at = 0; at < 50; at++) pair.source.link.sendOrdered(frameType.batch, payloadOf('', 50_000));
    await pair.source.link.close();
    await until(() => pair.destination.lost.length > 0);
    expect(pair.destination.ordered).toHaveLength(50);
    expect(pair.destination.lost).toMatchObject([{ message: expect.stringContaining('closed the link') }]);
    expect(pair.destination.interrupted).toEqual([]);
    expect(pair.source.lost).toEqual([]);
    expect(await isListening(pair.listener.port)).toBe(false);
  });

  test('that is closed while it looks for its peer leaves nothing open', async () => {
    await using pair = await durablePair();
    pair.network.stall();
    pair.network.cut();
    await until(() => !pair.source.link.isConnected && !pair.destination.link.isConnected);
    await until(() => pair.network.connects > 3);
    const startMs = performance.now();
    await Promise.all([pair.source.link.close(), pair.destination.link.close()]);
    expect(performance.now() - startMs).toBeLessThan(1000);
    await until(() => pair.network.openConnections === 0);
    expect(await isListening(pair.listener.port)).toBe(false);
    expect([...pair.source.lost, ...pair.destination.lost]).toEqual([]);
  });

  test('needs a connection for what is urgent', async () => {
    await expect(durablePair({ connections: 1 })).rejects.toMatchObject({ code: 'VMMIG_LINK_INCOMPATIBLE' });
  });

  test('does not take ordered frames for urgent ones', async () => {
    await using pair = await durablePair();
    expect(() => pair.source.link.sendUrgent(frameType.batch, Buffer.alloc(0))).toThrow(TypeError);
  });
});

describe('a durable link and other peers', () => {
  test('leaves the port to a new pair of relays once it is closed', async () => {
    await using pair = await durablePair();
    const { port } = pair.listener;
    await Promise.all([pair.source.link.close(), pair.destination.link.close()]);
    await using listener = await listen(newCredentials(), { host, ports: [port, port] });
    expect(listener.port).toBe(port);
  });

  test('tells the source when the destination relay was started anew', async () => {
    await using crashed = await durablePair();
    crashed.network.down();
    await until(() => !crashed.source.link.isConnected);
    await crashed.destination.link.close();
    const { port } = crashed.listener;
    await using fresh = await listen(crashed.credentials, { host, ports: [port, port], staysOpen: true });
    crashed.network.heal();
    await until(() => crashed.source.replaced.length > 0);
    expect(crashed.source.lost).toEqual([]);
    // The new link is another one, over the same port.
    const endpoint = { host, port: crashed.network.port };
    const peers = await dial(endpoint, crashed.credentials, { connections: 2 });
    const accepted = await fresh.joined;
    const source = side((handlers) => new DurableLink(peers, handlers));
    const destination = side((handlers) => new DurableLink(accepted, handlers));
    source.link.sendOrdered(frameType.batch, payloadOf('anew'));
    await until(() => destination.ordered.length === 1);
    await Promise.all([source.link.close(), destination.link.close()]);
  });

  test('makes way on the destination for a source relay that was started anew', async () => {
    await using pair = await durablePair();
    pair.network.down();
    await until(() => !pair.destination.link.isConnected);
    await pair.source.link.close();
    pair.network.heal();
    const endpoint = { host, port: pair.network.port };
    await expect(dial(endpoint, pair.credentials, { connections: 2 })).rejects.toMatchObject({ name: 'RelayError' });
    await until(() => pair.destination.replaced.length > 0);
    expect(await isListening(pair.listener.port)).toBe(false);
  });

  test('cannot be taken over without the key, nor with the key and another session', async () => {
    await using pair = await durablePair();
    const endpoint = { host, port: pair.listener.port };
    const wrongKey = { ...pair.credentials, key: randomBytes(32) };
    const resume = () => ({ session: 'ab'.repeat(16), attempt: 1000, received: 0 });
    await expect(dialAgain(endpoint, wrongKey, { connections: 3 }, resume)).rejects.toMatchObject({
      code: 'VMMIG_LINK_AUTH',
    });
    await expect(dialAgain(endpoint, pair.credentials, { connections: 3 }, resume)).rejects.toBeInstanceOf(
      UnknownSessionError,
    );
    pair.source.link.sendOrdered(frameType.batch, payloadOf('undisturbed'));
    await until(() => pair.destination.ordered.length === 1);
    expect([...pair.destination.interrupted, ...pair.destination.lost, ...pair.destination.replaced]).toEqual([]);
  });

  test('is not hindered in coming back by strangers, and does not hold their sockets', async () => {
    await using pair = await durablePair();
    const strangers: Socket[] = [];
    for (let count = 0; count < 60; count++) {
      const socket = createConnection({ host, port: pair.listener.port }).on('error', () => {});
      await once(socket, 'connect');
      strangers.push(socket);
    }
    await until(() => strangers.filter(({ closed }) => closed).length >= 28);
    pair.network.cut();
    await until(() => pair.source.link.reconnects === 1);
    await Promise.all([pair.source.link.close(), pair.destination.link.close()]);
    await until(() => strangers.every(({ closed }) => closed));
  });

  test.each([
    ['claims to have received what was not sent', frameType.received, Buffer.alloc(24, 1)],
    ['sends a receipt of another length', frameType.received, Buffer.alloc(7)],
    ['sends a ping of any length', frameType.ping, Buffer.alloc(100)],
    ['sends a malformed pong', frameType.pong, Buffer.alloc(3)],
  ])('fails when its peer %s', async (_, type, payload) => {
    await using pair = await connectedPair(3);
    const destination = side((handlers) => new DurableLink(pair.accepted, handlers));
    for (const { tls } of pair.dialed) tls.on('error', () => {}).resume();
    pair.dialed[0]!.tls.write(frameBytes(type, 0, payload));
    await until(() => destination.lost.length > 0);
    expect(destination.lost).toMatchObject([{ code: 'VMMIG_LINK_PROTOCOL' }]);
    await destination.link.close();
  });

  test('fails when its peer resumes with frames received that were not sent', async () => {
    await using pair = await durablePair();
    pair.network.down();
    await until(() => !pair.destination.link.isConnected);
    await pair.source.link.close();
    const endpoint = { host, port: pair.listener.port };
    const resume = () => ({ session: pair.destination.link.session, attempt: 1000, received: 5 });
    const resumed = await dialAgain(endpoint, pair.credentials, { connections: 3 }, resume);
    for (const { peer } of resumed) peer.tls.on('error', () => {}).resume();
    await until(() => pair.destination.lost.length > 0);
    expect(pair.destination.lost).toMatchObject([{ code: 'VMMIG_LINK_PROTOCOL' }]);
    for (const { peer } of resumed) peer.tls.destroy();
  });
});

function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
}
