import { describe, expect, test } from 'vitest';
import { frameType } from '../../../relay/link/frames.js';
import { until } from '../peers.js';
import { durablePair, payloadOf, type Side } from './durablePair.js';

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
});
