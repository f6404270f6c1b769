import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import type { RelayError } from '../../../relay/errors.js';
import { frameType } from '../../../relay/link/frames.js';
import { encodeResendRequest } from '../../../relay/link/resend.js';
import { BatchSender } from '../../../relay/source/switch/batchSender.js';
import { HostPages } from '../../../relay/source/switch/hostPages.js';
import { newPhases } from '../../../relay/source/switch/phases.js';
import { Pump } from '../../../relay/source/switch/pump.js';
import { StoreError } from '../../../relay/store/errors.js';
import { PageStore } from '../../../relay/store/pageStore.js';

const pageBytes = 4096;
const runPages = 64;
const blocks = [{ name: 'ram', lengthBytes: 4096 * pageBytes }];

/** A source whose link takes what is sent and says nothing. */
function source() {
  const store = new PageStore(blocks, { limitBytes: 64 * 2 ** 20, spillPath: null });
  const sent: { type: number; bytes: number }[] = [];
  const failures: RelayError[] = [];
  const linkFailures: RelayError[] = [];
  const link = {
    isOpenForBulk: true,
    rttMs: 40,
    urgentBytes: 0,
    sendOrdered(type: number, { length }: Buffer) {
      return sent.push({ type, bytes: length }) - 1;
    },
    sendUrgent(type: number, { length }: Buffer) {
      sent.push({ type, bytes: length });
      link.urgentBytes += length;
    },
    fail: (cause: RelayError) => void linkFailures.push(cause),
  };
  const digester = new RunDigester(Buffer.alloc(32));
  const tools = { link, digester, counters: newCounters(), compress: false, sent: () => {} };
  const batches = new BatchSender(store, blocks, tools);
  const phases = newPhases();
  const pump = new Pump(phases, link, null, new HostPages(), {
    failed: (error) => void failures.push(error),
    hasEnded: () => false,
  });
  pump.supply(batches);
  const want = (sequence: number, record: number) =>
    batches.want({ type: frameType.resendRequest, sequence, payload: encodeResendRequest(record) });
  return { store, link, sent, failures, linkFailures, digester, phases, batches, pump, want };
}

describe('What is sent when', () => {
  test('ends the relay, and says why, when a page does not come back from where it was put away', () => {
    const { store, failures, pump } = source();
    store.fillBatch = () => {
      throw new StoreError('VMMIG_STORE_SPILL_IO', 'the spill file cannot be read');
    };
    pump.run();
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ code: 'VMMIG_STORE_SPILL_IO', message: expect.stringMatching(/spill file/) });
  });

  test('is nothing while the guest stands still, until it goes: then what it would wait for round trips for', () => {
    const { store, link, phases, batches, pump } = source();
    for (let page = 0; page < 2048; page++) store.putPage(0, page, randomBytes(pageBytes), 0);
    Object.assign(phases, { mayStop: true, hasStopped: true, ramEnded: true });
    pump.run();
    expect(batches.pagesUnderWay).toBe(0);
    phases.hasGone = true;
    link.rttMs = 1;
    pump.run();
    const soon = batches.pagesUnderWay;
    expect(soon).toBeLessThan(100);
    link.rttMs = 40;
    pump.run();
    expect(batches.pagesUnderWay).toBeGreaterThan(soon);
    expect(batches.pagesUnderWay).toBeLessThan(1024);
    phases.isRunning = true;
    pump.run();
    expect(batches.pagesUnderWay).toBe(2048);
  });

  test('is no more of what the disk does not hold than the link may keep, until it has gone out', () => {
    const { store, link, sent, digester, pump, want } = source();
    const run = randomBytes(runPages * pageBytes);
    for (let page = 0; page < 4096; page += runPages)
      store.putReference(0, page, runPages, 0, page * pageBytes, digester.digest(run), run);
    pump.run();
    const batch = sent.findIndex(({ type }) => type === frameType.batch);
    const records = 4096 / runPages;
    const all = Array.from({ length: sent.length }, (_, sequence) => sequence);
    for (const sequence of all.slice(batch))
      for (let record = 0; record < records / all.length; record++) want(sequence, record);
    pump.run();
    const resent = () => sent.filter(({ type }) => type === frameType.resend).length;
    const first = resent();
    expect(first).toBeGreaterThan(0);
    expect(link.urgentBytes).toBeLessThan(5 * 2 ** 20);
    link.urgentBytes = 0;
    pump.run();
    expect(resent()).toBeGreaterThan(first);
  });

  test('is nothing for who asks for what was not sent: the link ends, and not what the guest needs', () => {
    const { failures, linkFailures, pump, want } = source();
    want(77, 0);
    pump.run();
    expect(failures).toEqual([]);
    expect(linkFailures).toMatchObject([{ code: 'VMMIG_LINK_PROTOCOL' }]);
  });
});
