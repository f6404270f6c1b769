import { expect, onTestFinished, test } from 'vitest';
import { DurableLink } from '../../../relay/link/durableLink.js';
import { frameType } from '../../../relay/link/frames.js';
import { listen } from '../../../relay/link/handshake.js';
import { SwitchLink, type SwitchLinkOptions } from '../../../relay/source/switch/switchLink.js';
import { host, newCredentials, until } from '../peers.js';

const credentials = newCredentials();

/** A link that the first destination, which takes no bulk data, is about to fall away from. */
async function newLink(options: Partial<SwitchLinkOptions> = {}): Promise<SwitchLink> {
  const link = new SwitchLink(
    { credentials, connections: 1, bandwidthBps: null, reconnectTimeoutMs: 60_000, ...options },
    { frame: () => {}, drained: () => {}, interrupted: () => {}, resumed: () => {}, lost: () => {} },
  );
  onTestFinished(() => link.close());
  return link;
}

/** Lets a destination relay take the place of the one before. @returns what it gets, in its order */
async function meet(link: SwitchLink, takesBulk: boolean): Promise<string[]> {
  const got: string[] = [];
  const listener = await listen(credentials, { host });
  const endpoint = { host, port: listener.port };
  link.use(await link.dial(endpoint), endpoint);
  const note = ({ payload }: { payload: Buffer }) => got.push(payload.toString('latin1'));
  const there = new DurableLink(await listener.joined, { ordered: note, immediate: note, lost: () => {} });
  onTestFinished(() => there.close());
  there.holdBulk(!takesBulk);
  return got;
}

test('another destination does not wait for what the one before has not taken', async () => {
  const link = await newLink();
  await meet(link, false);
  for (let sent = 0; sent < 64; sent++) link.sendOrdered(frameType.batch, Buffer.alloc(100_000));
  await until(() => !link.isFree);
  const got = await meet(link, true);
  expect(link.isFree).toBe(true);
  link.sendOrdered(frameType.blocks, Buffer.from('blocks'));
  await until(() => got.length > 0);
  expect(got).toEqual(['blocks']);
});

test('nor until what the guest was answered there has been paid for', async () => {
  const link = await newLink({ bandwidthBps: 8000 });
  const first = await meet(link, true);
  link.sendUrgent(frameType.answer, Buffer.from('x'.repeat(1_000_000)));
  await until(() => first.length > 0);
  const got = await meet(link, true);
  link.sendOrdered(frameType.blocks, Buffer.from('blocks'));
  await until(() => got.length > 0);
  expect(got).toEqual(['blocks']);
});
