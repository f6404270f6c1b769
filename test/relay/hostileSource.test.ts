/** A peer with the right key that does not keep to the protocol, against a real destination relay. */
import { randomBytes } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { heldDisk } from '../../pager/index.js';
import { DestinationRelay } from '../../relay/destination/destinationRelay.js';
import { RelayError } from '../../relay/errors.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import { type Frame, frameType } from '../../relay/link/frames.js';
import { dial } from '../../relay/link/handshake.js';
import { host, newCredentials, until } from './peers.js';
import { temporaryDirectory } from './temporaryDirectory.js';
import { encodeWireBatch, pageOf } from './wire.js';

const { blocks, raw, batch, endOfRam, tail, root, memory, ahead } = frameType;
const { resend, resendRequest, acknowledge, rootResult } = frameType;

class HostileSource implements AsyncDisposable {
  readonly heard: Frame[] = [];
  isLost = false;
  link!: DurableLink;
  relay!: DestinationRelay;
  readonly #sockets: Socket[] = [];

  static async start(): Promise<HostileSource> {
    const source = new HostileSource();
    const dir = await temporaryDirectory('hostile');
    const qemu = createServer((socket) => source.#sockets.push(socket.on('error', () => {}).resume()));
    const qemuSocketPath = join(dir, 'incoming');
    await new Promise<void>((resolve) => qemu.listen(qemuSocketPath, resolve));
    const credentials = newCredentials();
    source.relay = await DestinationRelay.start(
      {
        credentials,
        listen: { host },
        qemuSocketPath,
        disks: [],
        reconnectTimeoutMs: 0,
        heldLimitBytes: 2 ** 20,
      },
      { released: () => {} },
    );
    const endpoint = { host, port: source.relay.port };
    source.link = new DurableLink(await dial(endpoint, credentials, { connections: 2 }), {
      immediate: (frame) => source.heard.push({ ...frame, payload: Buffer.from(frame.payload) }),
      lost: () => {
        source.isLost = true;
      },
    });
    source.#close = async () => {
      qemu.close();
      for (const socket of source.#sockets) socket.destroy();
    };
    return source;
  }

  #close: () => Promise<void> = async () => {};

  send(frames: readonly (readonly [type: number, payload: Buffer | string | object])[]): void {
    for (const [type, given] of frames) {
      const isJson = typeof given === 'object' && !Buffer.isBuffer(given);
      const payload = Buffer.from((isJson ? JSON.stringify(given) : given) as string);
      if (type < 16) this.link.sendOrdered(type, payload);
      else this.link.send(type, 0, payload);
    }
  }

  /** Why the relay gave up; QEMU and this peer have been left by then. */
  async failure(): Promise<RelayError> {
    const error = await this.relay.finished.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(RelayError);
    await until(() => this.isLost && this.#sockets.every(({ closed }) => closed));
    return error as RelayError;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await this.link.close();
    await this.#close();
  }
}

const sound = { sectionId: 2, blocks: [{ name: 'pc.ram', lengthBytes: 256 * 4096 }] };
const reference = encodeWireBatch({ records: [{ kind: 2, page: 3, count: 4, digest: randomBytes(16) }] });
const one = { kind: 1, page: 3, count: 1 };
const fourPages = encodeWireBatch({ records: [{ kind: 1, page: 3, count: 4 }], pages: Buffer.alloc(4 * 4096, 7) });

describe('a destination relay', () => {
  test.each([
    ['no JSON', 'blocks!'],
    ['null', 'null'],
    ['nothing', {}],
    ['no section', { blocks: [] }],
    ['no list', { sectionId: 2, blocks: 7 }],
    ['null for a block', { sectionId: 2, blocks: [null] }],
    ['a nameless block', { sectionId: 2, blocks: [{ lengthBytes: 4096 }] }],
    ['a negative length', { sectionId: 2, blocks: [{ name: 'a', lengthBytes: -4096 }] }],
    ['a length that is no whole number', { sectionId: 2, blocks: [{ name: 'a', lengthBytes: 0.5 }] }],
    ['a length as a text', { sectionId: 2, blocks: [{ name: 'a', lengthBytes: '4096' }] }],
    ['more memory than there is', { sectionId: 2, blocks: [{ name: 'a', lengthBytes: 2 ** 52 }] }],
    [
      'more blocks than there are',
      { sectionId: 2, blocks: Array.from({ length: 2000 }, (_, at) => ({ name: `${at}`, lengthBytes: 4096 })) },
    ],
  ])('refuses a list of blocks with %s', async (_, payload) => {
    await using source = await HostileSource.start();
    source.send([[blocks, payload]]);
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each<[string, (readonly [number, Buffer | string | object])[]]>([
    ['pages before any block was named', [[batch, encodeWireBatch({ records: [{ kind: 0, page: 0, count: 1 }] })]]],
    [
      'pages beyond the block',
      [
        [blocks, sound],
        [batch, encodeWireBatch({ records: [{ kind: 0, page: 250, count: 7 }] })],
      ],
    ],
    [
      'garbage for a batch',
      [
        [blocks, sound],
        [batch, randomBytes(1000)],
      ],
    ],
    [
      'an empty batch frame',
      [
        [blocks, sound],
        [batch, ''],
      ],
    ],
    [
      'a run that nobody asked for',
      [
        [blocks, sound],
        [resend, Buffer.concat([Buffer.alloc(3), pageOf(1)])],
      ],
    ],
    [
      'a run cut short',
      [
        [blocks, sound],
        [resend, 'x'],
      ],
    ],
    ['pages ahead of what memory there is', [[ahead, fourPages]]],
    [
      'pages ahead where only a QEMU has named its blocks',
      [
        [blocks, sound],
        [ahead, fourPages],
      ],
    ],
    [
      'memory that is named twice',
      [
        [memory, sound],
        [memory, sound],
      ],
    ],
    ['no JSON for memory', [[memory, 'memory!']]],
    ['memory without a list', [[memory, { blocks: 7 }]]],
    ['more memory than there is', [[memory, { blocks: [{ name: 'a', lengthBytes: 2 ** 52 }] }]]],
    ...(
      [
        ['a reference', reference],
        ['a reference to what is held', encodeWireBatch({ records: [{ kind: 2, page: 3, count: 4, disk: heldDisk }] })],
        ['a fill', encodeWireBatch({ records: [{ kind: 0, page: 3, count: 4 }] })],
        ['a fill after pages', encodeWireBatch({ records: [one, { kind: 0, page: 9, count: 1 }], pages: pageOf(1) })],
        ['a page beyond the block', encodeWireBatch({ records: [{ kind: 1, page: 256, count: 1 }], pages: pageOf(1) })],
        ['a page in no block', encodeWireBatch({ records: [{ ...one, block: 1 }], pages: pageOf(1) })],
        ['fewer pages than it says', encodeWireBatch({ records: [one] })],
        ['no batch', randomBytes(1000)],
        ['nothing', Buffer.alloc(0)],
      ] as const
    ).map(([what, payload]): [string, (readonly [number, Buffer | object])[]] => [
      `${what} ahead`,
      [
        [memory, sound],
        [ahead, fourPages],
        [ahead, payload],
      ],
    ]),
    ['what only a destination sends', [[acknowledge, Buffer.alloc(4)]]],
    ['a request for a run', [[resendRequest, Buffer.alloc(2)]]],
    ['a result', [[rootResult, Buffer.of(1)]]],
    ['a guest that it has let go of before the end', [[frameType.released, Buffer.alloc(0)]]],
    ['a second greeting', [[frameType.hello, '{}']]],
  ])('gives up on %s', async (_, frames) => {
    await using source = await HostileSource.start();
    source.send(frames);
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each([
    ['another root', randomBytes(32)],
    ['a short root', Buffer.alloc(3)],
    ['no root', Buffer.alloc(0)],
    ['a long root', Buffer.alloc(1000)],
  ])('finds memory unequal for %s, and never lets QEMU see the end of its stream', async (_, given) => {
    await using source = await HostileSource.start();
    source.send([
      [raw, 'header'],
      [blocks, sound],
      [endOfRam, ''],
      [tail, 'device state'],
      [root, given],
    ]);
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_RELAY_VERIFY' });
    const { rootResult: type, failure } = frameType;
    expect(source.heard.filter((frame) => frame.type === type).map(({ payload }) => payload[0])).toEqual([0]);
    expect(source.heard.some((frame) => frame.type === failure)).toBe(true);
  });

  test('asks for a run on a disk it does not have, and takes none but the right bytes for it', async () => {
    await using source = await HostileSource.start();
    source.send([
      [blocks, sound],
      [batch, reference],
    ]);
    await until(() => source.heard.some(({ type }) => type === resendRequest));
    const asked = source.heard.find(({ type }) => type === resendRequest)!;
    expect(asked.sequence).toBe(1);
    expect(asked.payload.readUInt16BE(0)).toBe(0);
    source.link.send(resend, 1, Buffer.concat([Buffer.alloc(3), Buffer.alloc(4 * 4096)]));
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each([
    ['that it holds with other bytes', 3, 4],
    ['that it holds a part of', 3, 5],
    ['that is a part of what it holds', 4, 3],
    ['that it does not hold', 40, 4],
  ])('asks for a run %s', async (_, page, count) => {
    await using source = await HostileSource.start();
    const records = [{ kind: 2, page, count, disk: heldDisk, digest: randomBytes(16) }];
    source.send([
      [memory, sound],
      [ahead, fourPages],
      [blocks, sound],
      [batch, encodeWireBatch({ records })],
    ]);
    await until(() => source.heard.some(({ type }) => type === resendRequest));
    expect(source.heard.find(({ type }) => type === resendRequest)).toMatchObject({ sequence: 3 });
    source.link.send(resend, 3, Buffer.concat([Buffer.alloc(3), Buffer.alloc(count * 4096, 7)]));
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each([
    ['another length', Buffer.concat([Buffer.alloc(3), pageOf(0)])],
    ['another record', Buffer.concat([Buffer.of(0, 1, 0), Buffer.alloc(4 * 4096)])],
    ['another encoding', Buffer.concat([Buffer.of(0, 0, 9), Buffer.alloc(4 * 4096)])],
    ['compressed garbage', Buffer.concat([Buffer.of(0, 0, 1), randomBytes(4096)])],
  ])('refuses a resent run with %s', async (_, payload) => {
    await using source = await HostileSource.start();
    source.send([
      [blocks, sound],
      [batch, reference],
    ]);
    await until(() => source.heard.some(({ type }) => type === resendRequest));
    source.link.send(resend, 1, payload);
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test('can be ended while it waits for a run that never comes', async () => {
    await using source = await HostileSource.start();
    source.send([
      [blocks, sound],
      [batch, reference],
      [endOfRam, ''],
      [root, randomBytes(32)],
    ]);
    await until(() => source.heard.some(({ type }) => type === resendRequest));
    await source.relay[Symbol.asyncDispose]();
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
  });

  test('notices when its peer is gone while it waits for a run', async () => {
    await using source = await HostileSource.start();
    source.send([
      [blocks, sound],
      [batch, reference],
      [endOfRam, ''],
    ]);
    await until(() => source.heard.some(({ type }) => type === resendRequest));
    source.isLost = true;
    await source.link.close();
    expect(await source.failure()).toMatchObject({ code: 'VMMIG_LINK_LOST' });
  });

  test('ends with a relay error, or waits, whatever frames it is sent', async () => {
    const frame = fc.oneof(
      fc.tuple(fc.constantFrom(raw, batch, endOfRam, tail, root, resend), fc.uint8Array({ maxLength: 60 })),
      fc.tuple(fc.constantFrom(memory, ahead), fc.uint8Array({ maxLength: 60 })),
      fc.constantFrom<readonly [number, Buffer | string]>(
        [blocks, JSON.stringify(sound)],
        [memory, JSON.stringify(sound)],
        [batch, reference],
        [ahead, fourPages],
      ),
      fc
        .record({
          type: fc.constantFrom(batch, ahead),
          kind: fc.nat(2),
          page: fc.nat(255),
          count: fc.integer({ min: 1, max: 64 }),
          disk: fc.constantFrom(0, 1, heldDisk),
        })
        .map(({ type, ...record }) => {
          const pages = Buffer.alloc(record.kind === 1 ? record.count * 4096 : 0);
          return [type, encodeWireBatch({ records: [record], pages })] as const;
        }),
    );
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(frame, { maxLength: 12 }), async (isNamed, frames) => {
        await using source = await HostileSource.start();
        if (isNamed) source.send([memory, blocks].map((type) => [type, sound]));
        source.send(frames.map(([type, payload]) => [type, Buffer.from(payload as string)]));
        source.send([[root, Buffer.alloc(32)]]);
        await Promise.race([
          source.relay.finished.catch(() => {}),
          until(() => source.heard.some(({ type }) => type === resendRequest)),
        ]);
        await source.relay[Symbol.asyncDispose]();
        expect(await source.failure()).toBeInstanceOf(RelayError);
      }),
      { numRuns: 60 },
    );
  });
});
