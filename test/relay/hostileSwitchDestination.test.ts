/**
 * What a destination that does not keep to the protocol can do to the source relay of a switch. Before the permission to
 * run it ends the move, and the guest goes on here. After it only the link ends: what the guest needs is kept.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../relay/errors.js';
import { encodeFault } from '../../relay/link/faults.js';
import { frameType } from '../../relay/link/frames.js';
import { encodePlaced } from '../../relay/link/placed.js';
import { encodeSequences } from '../../relay/link/sequences.js';
import { guestStream, LiarDestination, runningStream } from './liarDestination.js';
import type { Said } from './liarSource.js';
import { until } from './peers.js';

const { acknowledge, resendRequest, rootResult, failure, fault, running, placed } = frameType;
const { hostPages, givenBack, inPlace, hello, welcome, resend, answer, blocks } = frameType;
const pages = 64;
const be32 = (...values: number[]) => encodeSequences(values);

const anyTime: [string, Said[]][] = [
  ['an acknowledgement of what was not sent', [[acknowledge, be32(7777)]]],
  ['half an acknowledgement', [[acknowledge, Buffer.alloc(3)]]],
  ['giving back what was not sent', [[givenBack, be32(7777)]]],
  ['a request for what was not sent', [[resendRequest, Buffer.alloc(2), 9]]],
  ['half a request', [[resendRequest, Buffer.alloc(1), 1]]],
  ['pages of its host for other blocks', [[hostPages, be32(1, 1, 512)]]],
  ['pages of its host of no length', [[hostPages, be32(0)]]],
  ['pages of its host that are too long', [[hostPages, be32(2 ** 31)]]],
  ['half a page of its host', [[hostPages, Buffer.alloc(3)]]],
  ['what it has, unasked', [[placed, encodePlaced([Uint32Array.of(0, 4)])[0]!]]],
  ['a comparison before there is a root', [[rootResult, Buffer.of(1)]]],
  ['a bad comparison before there is a root', [[rootResult, Buffer.of(0)]]],
  ['a fault in a block that is not there', [[fault, encodeFault({ block: 7, page: 0, count: 1 })]]],
  ['half a fault', [[fault, Buffer.alloc(7)]]],
  ['an acknowledgement of the same twice', [[acknowledge, be32(1, 1)]]],
  ["a teleport's run in place", [[inPlace, Buffer.alloc(22)]]],
  ...[hello, welcome, resend, answer].map((type): [string, Said[]] => [
    `what a source says (${type})`,
    [[type, Buffer.alloc(8)]],
  ]),
];

describe('while the guest still runs here', () => {
  test.each<[string, Said[]]>([
    ...anyTime,
    ['a fault', [[fault, encodeFault({ block: 0, page: 0, count: 1 })]]],
    ['that the guest runs there', [[running]]],
    ['that the guest runs there, twice', [[running], [running]]],
    ['that it gives up', [[failure, 'no']]],
  ])('%s ends the move, and is not believed', async (_, frames) => {
    await using liar = await LiarDestination.start(runningStream());
    await liar.hears(blocks);
    liar.say(...frames);
    expect((await liar.failure()).code).toMatch(/^VMMIG_(LINK_PROTOCOL|RELAY_QEMU)$/);
    expect(liar.isSettled).toBe(true);
    expect(liar.events).toEqual([]);
  });

  test('what comes before the first word of QEMU is no better', async () => {
    for (const frames of [[[hostPages]], [[acknowledge]], [[running]], [[givenBack]]] satisfies Said[][]) {
      await using liar = await LiarDestination.start(Buffer.alloc(0));
      liar.say(...frames, [fault, encodeFault({ block: 0, page: 0, count: 1 })]);
      expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
      expect(liar.events).toEqual([]);
    }
  });

  test('what it says for people is short and plain when it gets to them', async () => {
    await using liar = await LiarDestination.start(runningStream());
    await liar.hears(blocks);
    liar.say([failure, `\x1b]0;gone\x07${'x'.repeat(100_000)}`]);
    const { message } = await liar.failure();
    expect(message).toMatch(/^\P{C}+$/u);
    expect(message.length).toBeLessThan(2000);
  });
});

describe('after the permission to run', () => {
  test.each<[string, Said[]]>([
    ...anyTime,
    ['a fault of more than its host has in a page', [[fault, encodeFault({ block: 0, page: 0, count: 60_000 })]]],
    ['a fault beyond the block', [[fault, encodeFault({ block: 0, page: pages, count: 1 })]]],
    ['a fault of no pages', [[fault, encodeFault({ block: 0, page: 0, count: 0 })]]],
  ])('%s ends the link, and nothing else', async (_, frames) => {
    await using liar = await LiarDestination.start(guestStream(pages));
    await liar.go();
    liar.say(...frames);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    expect(liar.isSettled).toBe(false);
    expect(liar.relay.state.remaining.bytesPages + liar.relay.state.remaining.zeroPages).toBeGreaterThan(0);
  });

  test('faults for everything, and reading nothing, take no more than their bounds', { timeout: 60_000 }, async () => {
    const many = 64 * 1024;
    await using liar = await LiarDestination.start(guestStream(many, 40_000));
    await liar.go();
    liar.say([running]);
    liar.stopReading();
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for (let page = 0; page < many; page++) {
      liar.say([fault, encodeFault({ block: 0, page, count: 1 })]);
      if (page % 500 === 0) await sleep(1);
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    await sleep(300);
    expect(Math.max(most, process.memoryUsage().arrayBuffers - before)).toBeLessThan(96 * 2 ** 20);
  });
});

describe('one that takes the place of another', () => {
  async function takingOver(): Promise<LiarDestination> {
    const liar = await LiarDestination.start(guestStream(pages));
    await liar.go();
    liar.say([running], [acknowledge, be32(1)]);
    await until(() => liar.events.includes('running'));
    await liar.link.close();
    await until(() => liar.lost.length > 0);
    liar.lost.length = 0;
    liar.heard.length = 0;
    await liar.meet((endpoint) => liar.relay.reconnect(endpoint));
    await liar.hears(blocks);
    return liar;
  }
  const whole = encodePlaced([Uint32Array.of(0, pages)])[0]!;
  const piece = (count: number, bytes = whole.subarray(2)) => Buffer.concat([Buffer.of(0, count), bytes]);

  test.each<[string, Said[]]>([
    ['no piece', [[placed, '']]],
    ['a piece of none', [[placed, piece(0)]]],
    ['a piece beyond their number', [[placed, piece(2), 2]]],
    [
      'the same piece twice',
      [
        [placed, piece(3), 1],
        [placed, piece(3), 1],
      ],
    ],
    [
      'pieces that contradict each other',
      [
        [placed, piece(4), 3],
        [placed, piece(2), 1],
      ],
    ],
    ['more pieces than there can be', [[placed, Buffer.of(0xff, 0xff, 1)]]],
    ['a piece that is longer than all of the guest', [[placed, piece(3, Buffer.alloc(2 ** 20))]]],
    ['pages beyond the block', [[placed, encodePlaced([Uint32Array.of(0, pages + 1)])[0]!]]],
    ['pages of other blocks', [[placed, encodePlaced([Uint32Array.of(0, 1), Uint32Array.of(0, 1)])[0]!]]],
    ['noise', [[placed, Buffer.concat([Buffer.of(0, 1), randomBytes(50)])]]],
    [
      'what it has, twice',
      [
        [placed, whole],
        [placed, whole],
      ],
    ],
    ['an acknowledgement of what the one before was sent', [[acknowledge, be32(2)]]],
  ])('and tells of %s ends the link, and nothing else', async (_, frames) => {
    await using liar = await takingOver();
    liar.say(...frames);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    expect(liar.isSettled).toBe(false);
  });

  test('cannot make the source keep its faults for ever', async () => {
    await using liar = await takingOver();
    for (let at = 0; at < 20_000; at++) liar.say([fault, encodeFault({ block: 0, page: at % pages, count: 1 })]);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    expect(liar.isSettled).toBe(false);
  });
});

test('any frames in any order end with a relay error, or wait', { timeout: 120_000 }, async () => {
  const types = [acknowledge, resendRequest, fault, hostPages, givenBack, placed, inPlace, answer, rootResult];
  const sound = fc.constantFrom<Said>(
    [acknowledge, be32(0)],
    [acknowledge, be32(1)],
    [running],
    [fault, encodeFault({ block: 0, page: 3, count: 1 })],
    [hostPages, be32(512)],
    [givenBack, be32(1)],
    [rootResult, Buffer.of(1)],
  );
  const noise = fc
    .tuple(fc.constantFrom(...types), fc.uint8Array({ maxLength: 40 }), fc.nat(5))
    .map(([type, bytes, sequence]): Said => [type, Buffer.from(bytes), sequence]);
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(fc.oneof(sound, sound, noise)), async (hasGone, frames) => {
      await using liar = await LiarDestination.start(hasGone ? guestStream(pages) : runningStream());
      if (hasGone) await liar.go();
      liar.say(...frames);
      await sleep(20);
      await liar.relay[Symbol.asyncDispose]();
      await liar.relay.finished.catch((error: unknown) => expect(error).toBeInstanceOf(RelayError));
      expect(hasGone || !liar.events.includes('running')).toBe(true);
    }),
    { numRuns: 50 },
  );
});
