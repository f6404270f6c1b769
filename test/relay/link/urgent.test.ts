import { describe, expect, test } from 'vitest';
import { RelayError } from '../../../relay/errors.js';
import { BulkWindow } from '../../../relay/link/bulkWindow.js';
import { DurableLink } from '../../../relay/link/durableLink.js';
import { frameType } from '../../../relay/link/frames.js';
import { dial, listen } from '../../../relay/link/handshake.js';
import { host, newCredentials, until } from '../peers.js';
import { Bottleneck } from './bottleneck.js';

const lineBytesPerMs = 4000;
const delayMs = 15;

/** Round trips of urgent frames against the stream of bulk data, with bulk data at full speed. */
async function measure(bulkWindow: BulkWindow): Promise<{ p50Ms: number; p90Ms: number; bytesPerMs: number }> {
  const credentials = newCredentials();
  await using listener = await listen(credentials, { host });
  await using line = await Bottleneck.to(listener.port, lineBytesPerMs, delayMs);
  const endpoint = { host, port: line.port };
  const [dialed, accepted] = await Promise.all([dial(endpoint, credentials, { connections: 3 }), listener.joined]);
  const roundTripsMs: number[] = [];
  let bulkBytes = 0;
  await using destination = new DurableLink(accepted, {
    ordered: ({ payload }) => {
      bulkBytes += payload.length;
    },
    immediate: ({ payload }) => roundTripsMs.push(performance.now() - payload.readDoubleBE(0)),
    lost: () => {},
  });
  const bulk = Buffer.alloc(50_000, 1);
  const fill = () => {
    while (source.isOpenForBulk) source.sendOrdered(frameType.batch, bulk);
  };
  await using source: DurableLink = new DurableLink(
    dialed,
    {
      // A fault is answered with a page.
      immediate: ({ payload }) => source.sendUrgent(frameType.resend, Buffer.concat([payload, bulk.subarray(0, 4096)])),
      drained: fill,
      lost: () => {},
    },
    { bulkWindow },
  );
  source.ping();
  await until(() => source.rttMs > 0);
  fill();
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const [startBytes, startMs] = [bulkBytes, performance.now()];
  for (let count = 0; count < 150; count++) {
    const payload = Buffer.alloc(8);
    payload.writeDoubleBE(performance.now());
    destination.sendUrgent(frameType.resendRequest, payload);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const bytesPerMs = (bulkBytes - startBytes) / (performance.now() - startMs);
  await until(() => roundTripsMs.length === 150);
  // What is under way when the window is wide would take its time.
  source.fail(new RelayError('VMMIG_RELAY_ABORTED', 'measured'));
  roundTripsMs.sort((left, right) => left - right);
  return { p50Ms: roundTripsMs[75]!, p90Ms: roundTripsMs[135]!, bytesPerMs };
}

describe('urgent frames', () => {
  test('overtake bulk data, which uses the line all the same', async () => {
    const { p50Ms, p90Ms, bytesPerMs } = await measure(new BulkWindow());
    expect(p50Ms).toBeLessThan(2 * delayMs + 12);
    expect(p90Ms).toBeLessThan(2 * 2 * delayMs);
    expect(bytesPerMs).toBeGreaterThan(0.65 * lineBytesPerMs);
  });

  test('would wait behind it if nothing bounded what is under way', async () => {
    const { p50Ms } = await measure(new BulkWindow({ minBytes: 4_000_000, maxBytes: 4_000_000 }));
    expect(p50Ms).toBeGreaterThan(4 * delayMs);
  });
});
