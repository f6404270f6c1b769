/** What a source that does not keep to the protocol can do to the destination relay of a switch: end it, and no more. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../relay/errors.js';
import { packPages } from '../../relay/link/batch.js';
import { encodeFrameHeader, frameType } from '../../relay/link/frames.js';
import {
  ahead,
  answer,
  batch,
  batchOf,
  blocks,
  captured,
  device,
  devicePiece,
  go,
  guestPages,
  hints,
  LiarSource,
  memory,
  memoryOf,
  remote,
  remoteOf,
  resend,
  root,
  type Said,
} from './liarSource.js';
import { until } from './peers.js';
import { encodeWireBatch } from './wire.js';

const { raw, endOfRam, tail, acknowledge, fault, placed, hostPages, givenBack, running, refused, rootResult } =
  frameType;
const named: Said = [blocks, captured()];
const toGo: readonly Said[] = [
  named,
  [batch, batchOf({ count: 4 })],
  [remote, remoteOf(8, 4)],
  [device, devicePiece()],
];
const gone: readonly Said[] = [...toGo, [go]];
const plainRemote = (bytes: Buffer) => Buffer.concat([Buffer.of(0, 0, 0, bytes.length, 0), bytes]);

describe('before its time, twice, or not at all', () => {
  test.each<[string, readonly Said[]]>([
    ['the pages to come before the blocks', [[remote, remoteOf(0, 1)]]],
    ['device state before the blocks', [[device, devicePiece()]]],
    ['the permission to run before the blocks', [[go]]],
    ['hints before the blocks', [[hints, Buffer.alloc(5)]]],
    ['a batch before the blocks', [[batch, batchOf({})]]],
    ['a root before the blocks', [[root, Buffer.alloc(32)]]],
    ['an answer before the blocks', [[answer, batchOf({}), 2 ** 31]]],
    ['a resent run before the blocks', [[resend, Buffer.alloc(4099)]]],
    ['pages ahead of what memory there is', [[ahead, batchOf({})]]],
    ['the blocks twice', [named, named]],
    [
      'the memory twice',
      [
        [memory, memoryOf()],
        [memory, memoryOf()],
      ],
    ],
    ['the memory after the blocks', [named, [memory, memoryOf()]]],
    ['an answer before anything can have been asked', [named, [answer, batchOf({}), 2 ** 31]]],
    ['an answer that nobody asked for', [...gone, [answer, batchOf({ page: 8, count: 1 }), 2 ** 31]]],
    ['a resent run that nobody asked for', [named, [resend, Buffer.alloc(4099)]]],
    ['a root before the permission to run', [named, [root, Buffer.alloc(32)]]],
    ['the permission to run twice', [...gone, [go]]],
    ['device state after the permission to run', [...gone, [device, devicePiece()]]],
    ['pages to come after the permission to run', [...gone, [remote, remoteOf(9, 1)]]],
    ['pages ahead after the permission to run', [...gone, [ahead, batchOf({})]]],
    ['the blocks after the permission to run', [...gone, named]],
    ["a teleport's stream", [named, [raw, 'bytes']]],
    ["a teleport's end of memory", [named, [endOfRam]]],
    ["a teleport's tail", [named, [tail, 'bytes']]],
    ...[acknowledge, fault, placed, hostPages, givenBack, running, refused, rootResult].map(
      (type): [string, readonly Said[]] => [`what only a destination says (${type})`, [named, [type, Buffer.alloc(8)]]],
    ),
  ])('%s ends the link', async (_, frames) => {
    await using liar = await LiarSource.start();
    // What is handled as it arrives may overtake what is handled in order.
    for (const said of frames) {
      liar.say(said);
      if (frames.length < 5) await sleep(20);
      else if (said[0] === go) await until(() => liar.events.includes('permitted') || liar.isLost);
    }
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });
});

describe('malformed', () => {
  const tooMany = Buffer.alloc(7);
  tooMany.writeUInt16BE(5000, 1);
  test.each<[string, readonly Said[]]>([
    ['blocks with nothing for one', [[blocks, { ...captured(), blocks: [null] }]]],
    ['blocks in a section that is no number', [[blocks, { ...captured(), section: null }]]],
    ['blocks in a section beyond 32 bits', [[blocks, { ...captured(), section: { id: 2 ** 40, version: 4 } }]]],
    ['a block of half a page', [[blocks, { ...captured(), blocks: [{ name: 'ram', lengthBytes: 2048 }] }]]],
    ['blocks without a head', [[blocks, { ...captured(), head: 7 }]]],
    ['memory without blocks', [[memory, { blocks: 'none' }]]],
    ['a batch of a page beyond the block', [named, [batch, batchOf({ page: guestPages })]]],
    ['a batch in a block that is not there', [named, [batch, batchOf({ block: 1 })]]],
    ['a batch of more records than one has', [named, [batch, Buffer.concat([tooMany, Buffer.alloc(50_000)])]]],
    ['noise for a batch', [named, [batch, randomBytes(500)]]],
    ['an answer beyond the block', [...gone, [answer, batchOf({ page: guestPages }), 2 ** 31]]],
    [
      'a reference ahead',
      [
        [memory, memoryOf()],
        [ahead, batchOf({ kind: 2 })],
      ],
    ],
    [
      'a fill ahead',
      [
        [memory, memoryOf()],
        [ahead, batchOf({ kind: 0 })],
      ],
    ],
    [
      'a page ahead beyond the block',
      [
        [memory, memoryOf()],
        [ahead, batchOf({ page: guestPages })],
      ],
    ],
    ['no pages to come', [named, [remote, ''], [go]]],
    ['pages to come beyond the block', [named, [remote, plainRemote(Buffer.of(1, 200, 1, 57))], [go]]],
    ['pages to come of other blocks', [named, [remote, plainRemote(Buffer.of(0, 0))], [go]]],
    ['noise for pages to come', [named, [remote, randomBytes(100)], [go]]],
    ['no device state', [named, [device, '']]],
    ['a device state of no length', [named, [device, Buffer.alloc(5)]]],
    ['a device state of a length that is not so', [named, [device, Buffer.from('0000000800ff', 'hex')]]],
    ['a piece of device state that is too long', [named, [device, Buffer.from('0040000001ff', 'hex')]]],
    ['noise for hints', [named, [hints, randomBytes(40)]]],
    ['a frame of an unknown type', [[63, 'x', 0]]],
  ])('%s ends the link', async (_, frames) => {
    await using liar = await LiarSource.start();
    liar.say(...frames);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test('a root that is another is found out, and QEMU keeps what it has', async () => {
    await using liar = await LiarSource.start();
    liar.say(named, [batch, batchOf({ count: 4 })], [device, devicePiece()], [remote, remoteOf()], [go]);
    await until(() => liar.events.includes('loaded'));
    liar.relay.tellRunning();
    liar.say([batch, batchOf({ kind: 0, page: 4, count: guestPages - 4 })], [root, randomBytes(32)]);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_RELAY_VERIFY' });
    expect((await liar.hears(rootResult)).payload).toEqual(Buffer.of(0));
    expect(liar.qemu.complaints).toEqual([]);
  });

  test('a root before all memory is there is the end, not of QEMU', async () => {
    await using liar = await LiarSource.start();
    liar.say(...gone);
    await until(() => liar.events.includes('loaded'));
    liar.relay.tellRunning();
    liar.say([root, Buffer.alloc(32)]);
    expect((await liar.failure()).code).toMatch(/^VMMIG_/);
    expect(liar.qemu.came).not.toContain('end');
  });

  test('what is sent in the order of another lane, or a frame twice, is no way around', async () => {
    await using liar = await LiarSource.start();
    liar.say([blocks, captured()]);
    // Below the link: the same ordered frame again.
    const payload = Buffer.from(JSON.stringify(captured()));
    liar.link.sendUrgent(frameType.goodbye, Buffer.alloc(0));
    expect(encodeFrameHeader(blocks, 0, payload.length).length).toBe(9);
    await liar.link.close();
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_LOST' });
  });
});

describe('too much', () => {
  async function grownBy(liar: LiarSource, frames: () => Promise<void>): Promise<number> {
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }, 10);
    try {
      await frames();
      await Promise.race([liar.relay.finished.catch(() => {}), sleep(1500)]);
    } finally {
      clearInterval(watch);
    }
    return Math.max(most, process.memoryUsage().arrayBuffers - before);
  }

  const pages = 2 ** 18;

  test('pages that come to much more than their frames wait for QEMU, which does not take them', async () => {
    await using liar = await LiarSource.start();
    liar.say([blocks, captured(pages)], [batch, batchOf({ count: 1 })]);
    await liar.hears(acknowledge);
    liar.qemu.stall(true);
    const packed = packPages(Buffer.alloc(128 * 4096, 1)).subarray(1);
    const grown = await grownBy(liar, async () => {
      for (let page = 0; page < pages; page += 128) {
        const records = [{ kind: 1, page, count: 128 }];
        liar.say([batch, encodeWireBatch({ encoding: 1, records, rawBytes: 128 * 4096, pages: packed })]);
      }
    });
    expect(grown).toBeLessThan(96 * 2 ** 20);
  });

  test('fills that are not zero cannot make a batch become the guest', async () => {
    await using liar = await LiarSource.start();
    liar.say([blocks, captured(pages)]);
    const records = Array.from({ length: 4 }, (_, at) => ({ kind: 0, fill: 7, page: at * 65535, count: 65535 }));
    const grown = await grownBy(liar, async () => liar.say([batch, encodeWireBatch({ records })]));
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    expect(grown).toBeLessThan(96 * 2 ** 20);
  });

  test('frames without anything in them are not kept for ever', async () => {
    await using liar = await LiarSource.start();
    liar.say([blocks, captured(pages)], [batch, batchOf({ count: 1 })]);
    await liar.hears(acknowledge);
    liar.qemu.stall(true);
    const heapBefore = process.memoryUsage().heapUsed;
    for (let at = 0; at < 100_000; at++) liar.say([ahead, encodeWireBatch({ records: [] })]);
    await sleep(500);
    expect(process.memoryUsage().heapUsed - heapBefore).toBeLessThan(256 * 2 ** 20);
  });

  test('a list of pages to come has an end', { timeout: 60_000 }, async () => {
    await using liar = await LiarSource.start();
    liar.say(named);
    for (let at = 0; at < 17; at++) liar.say([remote, Buffer.alloc(4 * 2 ** 20)]);
    expect(await liar.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });
});

test('any frames in any order end with a relay error, or wait', { timeout: 120_000 }, async () => {
  const sound = fc.constantFrom<Said>(...gone, [memory, memoryOf()], [ahead, batchOf({})], [root, Buffer.alloc(32)]);
  const run = fc.record({
    kind: fc.nat(2),
    fill: fc.nat(1),
    page: fc.nat(guestPages + 1),
    count: fc.integer({ min: 1, max: 70 }),
    disk: fc.constantFrom(0, 65535),
  });
  const brought = fc.tuple(fc.constantFrom(batch, ahead, answer), run).map(([type, record]): Said => {
    return [type, batchOf(record), type === answer ? 2 ** 31 : 0];
  });
  const noise = fc
    .tuple(fc.constantFrom(blocks, memory, ahead, batch, hints, remote, device, root, answer, resend), fc.uint8Array())
    .map(([type, bytes]): Said => [type, Buffer.from(bytes)]);
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(fc.oneof(sound, brought, brought, noise)), async (isNamed, frames) => {
      await using liar = await LiarSource.start();
      liar.say(...(isNamed ? [named] : []), ...frames);
      await Promise.race([liar.relay.finished.catch(() => {}), sleep(30)]);
      await liar.relay[Symbol.asyncDispose]();
      expect(await liar.failure()).toBeInstanceOf(RelayError);
      expect(liar.qemu.complaints.filter((each) => each.startsWith('EEXIST'))).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
