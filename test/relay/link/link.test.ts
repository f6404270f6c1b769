import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../../relay/errors.js';
import type { LinkConnection } from '../../../relay/link/connection.js';
import { DurableLink } from '../../../relay/link/durableLink.js';
import type { DurableLinkOptions } from '../../../relay/link/durableLinkOptions.js';
import { type Frame, frameHeaderBytes, frameType } from '../../../relay/link/frames.js';
import { OpenWindow } from '../../../relay/link/sendingWindow.js';
import { TokenBucket } from '../../../relay/link/tokenBucket.js';
import { connectedPair, frameBytes, until } from '../peers.js';

/** A link that writes down what it is handed, and on which nothing is urgent. */
function recording(peers: LinkConnection[], options: DurableLinkOptions = {}) {
  const ordered: Frame[] = [];
  const immediate: Frame[] = [];
  const lost: RelayError[] = [];
  const link = new DurableLink(
    peers,
    {
      ordered: (frame) => ordered.push({ ...frame, payload: Buffer.from(frame.payload) }),
      immediate: (frame) => immediate.push(frame),
      lost: (cause) => lost.push(cause),
    },
    { bulkWindow: new OpenWindow(), ...options },
  );
  return { link, ordered, immediate, lost };
}

describe('a link', () => {
  test.each([2, 3, 4])('over %i connections hands ordered frames over in order', async (connections) => {
    await using pair = await connectedPair(connections);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed);
    const payloads = Array.from({ length: 300 }, (_, at) => Buffer.alloc((at * 7919) % 30_000, at));
    for (const [at, payload] of payloads.entries()) {
      expect(sender.link.sendOrdered(frameType.batch, payload)).toBe(at);
      if (at % 10 === 0) sender.link.send(frameType.resend, at, Buffer.of(at & 255));
    }
    await until(() => receiver.ordered.length === payloads.length && receiver.immediate.length === 30);
    expect(receiver.ordered.map(({ sequence }) => sequence)).toEqual(payloads.map((_, at) => at));
    for (const [at, { payload }] of receiver.ordered.entries()) expect(payload.equals(payloads[at]!)).toBe(true);
    expect(receiver.lost).toEqual([]);
    await Promise.all([sender.link.close(), receiver.link.close()]);
  });

  test('restores the order from any interleaving of the connections', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc
          .integer({ min: 2, max: 4 })
          .chain((connections) =>
            fc.tuple(
              fc.constant(connections),
              fc.array(fc.nat(connections - 1), { minLength: 1, maxLength: 60 }),
              fc.integer(),
            ),
          ),
        async ([connections, ways, seed]) => {
          await using pair = await connectedPair(connections);
          const receiver = recording(pair.accepted);
          const order = ways.map((_, at) => at).sort((left, right) => hash(left, seed) - hash(right, seed));
          for (const sequence of order)
            pair.dialed[ways[sequence]!]!.tls.write(frameBytes(frameType.raw, sequence, `frame ${sequence}`));
          await until(() => receiver.ordered.length === ways.length || receiver.lost.length > 0);
          expect(receiver.ordered.map(({ payload }) => payload.toString())).toEqual(ways.map((_, at) => `frame ${at}`));
          await receiver.link.close();
        },
      ),
      { numRuns: 15 },
    );
  });

  test('spreads bulk data over all connections but the first', async () => {
    await using pair = await connectedPair(4);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed);
    for (let count = 0; count < 200; count++) sender.link.sendOrdered(frameType.batch, Buffer.alloc(100_000));
    await until(() => receiver.ordered.length === 200);
    for (const { socket } of pair.accepted.slice(1)) expect(socket.bytesRead).toBeGreaterThan(1_000_000);
    expect(sender.link.bytesOnWire).toBeGreaterThan(20_000_000);
    expect(sender.link.bytesOnWire).toBeLessThan(20_600_000);
    await Promise.all([sender.link.close(), receiver.link.close()]);
  });

  test.each([
    ['sent twice in a row', [0, 0]],
    ['that was handed over long ago', [0, 1, 2, 1]],
    ['that still waits for its turn', [5, 5]],
  ])('calls a frame %s a protocol error', async (_, sequences) => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    for (const sequence of sequences) pair.dialed[0]!.tls.write(frameBytes(frameType.raw, sequence, 'x'));
    await until(() => receiver.lost.length > 0);
    expect(receiver.lost).toHaveLength(1);
    expect(receiver.lost[0]).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    await until(() => pair.accepted.every(({ tls }) => tls.destroyed));
  });

  test('that gets garbage is lost once, with a protocol error', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    for (const { tls } of pair.dialed)
      tls
        .on('error', () => {})
        .resume()
        .write(Buffer.alloc(100_000, 0xff));
    await until(() => pair.dialed.every(({ tls }) => tls.closed));
    expect(receiver.lost).toHaveLength(1);
    expect(receiver.lost[0]).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each([
    ['pong', frameBytes(frameType.pong, 0, 'short')],
    ['ping', frameBytes(frameType.ping, 0, Buffer.alloc(100_000))],
  ])('that gets a malformed %s is lost with a protocol error', async (_, bytes) => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    pair.dialed[0]!.tls.write(bytes);
    await until(() => receiver.lost.length > 0);
    expect(receiver.lost[0]).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test('turns what a handler throws into its end', async () => {
    await using pair = await connectedPair(2);
    const lost: RelayError[] = [];
    new DurableLink(pair.accepted, {
      immediate: () => {
        throw new TypeError('out of luck');
      },
      lost: (cause) => lost.push(cause),
    });
    pair.dialed[0]!.tls.write(frameBytes(frameType.failure, 0));
    await until(() => lost.length > 0);
    expect(lost).toMatchObject([{ code: 'VMMIG_LINK_PROTOCOL', message: expect.stringContaining('out of luck') }]);
  });

  test.each(['destroy', 'resetAndDestroy'] as const)('is lost exactly once when its peer is gone (%s)', async (how) => {
    await using pair = await connectedPair(3);
    const receiver = recording(pair.accepted);
    for (const { socket } of pair.dialed) socket[how]();
    await until(() => receiver.lost.length > 0);
    await until(() => pair.accepted.every(({ tls }) => tls.closed));
    expect(receiver.lost).toHaveLength(1);
    expect(receiver.lost[0]).toMatchObject({ code: 'VMMIG_LINK_LOST' });
    expect(() => receiver.link.send(frameType.acknowledge, 0, Buffer.alloc(4))).not.toThrow();
    await receiver.link.close();
  });

  test('is lost whole when one of its connections is', async () => {
    await using pair = await connectedPair(4);
    const receiver = recording(pair.accepted);
    pair.dialed[2]!.socket.destroy();
    await until(() => pair.accepted.every(({ tls }) => tls.closed));
    expect(receiver.lost).toHaveLength(1);
  });

  test('delivers what was sent before it was closed', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed);
    const payload = randomBytes(100_000);
    for (let count = 0; count < 100; count++) sender.link.sendOrdered(frameType.batch, payload);
    await sender.link.close();
    await until(() => receiver.lost.length > 0);
    expect(receiver.ordered).toHaveLength(100);
    expect(receiver.lost).toHaveLength(1);
    expect(sender.lost).toEqual([]);
  });

  test('can be closed twice, and after it was lost', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed);
    await Promise.all([sender.link.close(), sender.link.close()]);
    await until(() => receiver.lost.length > 0);
    await receiver.link.close();
    await receiver.link[Symbol.asyncDispose]();
    expect(receiver.lost).toHaveLength(1);
  });

  test('closes though the other end does not', async () => {
    await using pair = await connectedPair(2);
    pair.dialed[0]!.tls.pause();
    const { link, lost } = recording(pair.accepted);
    const startMs = performance.now();
    await link.close();
    expect(performance.now() - startMs).toBeLessThan(3000);
    expect(lost).toEqual([]);
  });

  test('measures the round trip', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed);
    expect(sender.link.rttMs).toBe(0);
    sender.link.ping();
    await until(() => sender.link.rttMs > 0);
    expect(sender.link.rttMs).toBeLessThan(1000);
    await Promise.all([sender.link.close(), receiver.link.close()]);
  });

  test('is lost when the peer has fallen silent, and not while it only has nothing to say', async () => {
    await using silent = await connectedPair(2);
    await using idle = await connectedPair(2);
    const options = { silenceLimitMs: 600 };
    const watching = recording(silent.accepted, options);
    const [one, other] = [recording(idle.accepted, options), recording(idle.dialed, options)];
    const startMs = performance.now();
    await until(() => watching.lost.length > 0);
    expect(watching.lost[0]).toMatchObject({ code: 'VMMIG_LINK_LOST', message: expect.stringContaining('silent') });
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(600);
    expect([...one.lost, ...other.lost]).toEqual([]);
    await Promise.all([one.link.close(), other.link.close()]);
  });
});

describe('a bandwidth cap', () => {
  async function sendingMs(bitsPerSecond: number): Promise<number> {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed, { bucket: new TokenBucket(bitsPerSecond) });
    const startMs = performance.now();
    for (let count = 0; count < 50; count++)
      sender.link.sendOrdered(frameType.batch, Buffer.alloc(10_000 - frameHeaderBytes));
    await until(() => receiver.ordered.length === 50);
    expect(receiver.ordered.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 50 }, (_, at) => at));
    const elapsedMs = performance.now() - startMs;
    await Promise.all([sender.link.close(), receiver.link.close()]);
    return elapsedMs;
  }

  test('holds, and twice the bandwidth takes half the time', async () => {
    const slowMs = await sendingMs(8_000_000);
    const fastMs = await sendingMs(16_000_000);
    // 500 kB at 1 MB/s, less the burst of 10 ms.
    expect(slowMs).toBeGreaterThan(470);
    expect(fastMs).toBeGreaterThan(235);
    expect(slowMs / fastMs).toBeGreaterThan(1.4);
    expect(slowMs / fastMs).toBeLessThan(2.8);
  });

  test('is kept within 3 %, as bytes on the wire, whatever the size of the frames', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const bitsPerSecond = 25_000_000;
    const sender = recording(pair.dialed, { bucket: new TokenBucket(bitsPerSecond) });
    // What is queued outlasts the measurement.
    for (let count = 0; count < 40; count++) {
      sender.link.sendOrdered(frameType.batch, Buffer.alloc(count % 2 === 0 ? 300_000 : 1000));
      sender.link.send(frameType.resend, 0, Buffer.alloc(500));
    }
    await until(() => receiver.ordered.length > 0);
    const [startBytes, startMs] = [sender.link.bytesOnWire, performance.now()];
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // What TCP and IP add is counted as well, and is not seen here.
    const sentBits = (sender.link.bytesOnWire - startBytes) * (1500 / 1448) * 8;
    const share = sentBits / ((performance.now() - startMs) / 1000) / bitsPerSecond;
    expect(share).toBeGreaterThan(0.97);
    expect(share).toBeLessThan(1.03);
    sender.link.fail(new RelayError('VMMIG_RELAY_ABORTED', 'measured'));
    await receiver.link.close();
  });

  test.each([2, 3])('is flushed when the link is closed (%i connections)', async (connections) => {
    await using pair = await connectedPair(connections);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed, { bucket: new TokenBucket(8_000_000) });
    const payload = randomBytes(40_000);
    for (let count = 0; count < 10; count++) {
      sender.link.sendOrdered(frameType.batch, payload);
      sender.link.send(frameType.resend, count, payload.subarray(0, 1000));
    }
    await Promise.all([sender.link.close(), sender.link.close()]);
    await until(() => receiver.lost.length > 0);
    expect(receiver.ordered).toHaveLength(10);
    for (const frame of receiver.ordered) expect(frame.payload.equals(payload)).toBe(true);
    expect(receiver.immediate.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 10 }, (_, at) => at));
    expect(receiver.lost).toMatchObject([{ code: 'VMMIG_LINK_LOST' }]);
  });

  test('does not keep a link from closing in time', async () => {
    await using pair = await connectedPair(2);
    const receiver = recording(pair.accepted);
    const sender = recording(pair.dialed, { bucket: new TokenBucket(80_000) });
    for (let count = 0; count < 10; count++) sender.link.sendOrdered(frameType.batch, Buffer.alloc(100_000));
    const startMs = performance.now();
    await sender.link.close();
    expect(performance.now() - startMs).toBeLessThan(8000);
    await receiver.link.close();
  });

  test('counts what is sent out of order, too, without holding it up', async () => {
    const bucket = new TokenBucket(8_000_000);
    bucket.take(110_000);
    const startMs = performance.now();
    await take(bucket, 1);
    expect(performance.now() - startMs).toBeGreaterThan(80);
  });

  test('lets nothing through faster because nothing was sent for a while', async () => {
    const bucket = new TokenBucket(8_000_000);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const startMs = performance.now();
    for (let count = 0; count < 10; count++) await take(bucket, 10_000);
    expect(performance.now() - startMs).toBeGreaterThan(75);
  });
});

/** Orders numbers as by chance, the same way for the same seed. */
function hash(value: number, seed: number): number {
  return Math.imul(value ^ seed, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b ^ value);
}

async function take(bucket: TokenBucket, lengthBytes: number): Promise<void> {
  for (let waitMs = bucket.tryTake(lengthBytes); waitMs > 0; waitMs = bucket.tryTake(lengthBytes))
    await new Promise((resolve) => setTimeout(resolve, waitMs));
}
