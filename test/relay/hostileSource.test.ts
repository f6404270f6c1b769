/** A peer with the right key that does not keep to the protocol, against a real destination relay. */
import { randomBytes } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DestinationRelay } from '../../relay/destination/destinationRelay.js';
import { RelayError } from '../../relay/errors.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import { type Frame, frameType } from '../../relay/link/frames.js';
import { dial } from '../../relay/link/handshake.js';
import { host, newCredentials, until } from './peers.js';
import { temporaryDirectory } from './temporaryDirectory.js';
import { encodeWireBatch, pageOf } from './wire.js';

const { blocks, raw, batch, endOfRam, tail, root, resend, resendRequest, acknowledge, rootResult } = frameType;

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
    source.relay = await DestinationRelay.start({
      credentials,
      listen: { host },
      qemuSocketPath,
      disks: [],
      reconnectTimeoutMs: 0,
    });
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
    ['what only a destination sends', [[acknowledge, Buffer.alloc(4)]]],
    ['a request for a run', [[resendRequest, Buffer.alloc(2)]]],
    ['a result', [[rootResult, Buffer.of(1)]]],
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
      fc.constantFrom([blocks, JSON.stringify(sound)] as const, [batch, reference] as const),
      fc
        .record({ kind: fc.nat(2), page: fc.nat(255), count: fc.integer({ min: 1, max: 64 }), disk: fc.nat(1) })
        .map((record) => {
          const pages = Buffer.alloc(record.kind === 1 ? record.count * 4096 : 0);
          return [batch, encodeWireBatch({ records: [record], pages })] as const;
        }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { maxLength: 12 }), async (frames) => {
        await using source = await HostileSource.start();
        source.send(frames.map(([type, payload]) => [type, Buffer.from(payload as string)]));
        source.send([[root, Buffer.alloc(32)]]);
        await Promise.race([
          source.relay.finished.catch(() => {}),
          until(() => source.heard.some(({ type }) => type === resendRequest)),
        ]);
        await source.relay[Symbol.asyncDispose]();
        expect(await source.failure()).toBeInstanceOf(RelayError);
      }),
      { numRuns: 30 },
    );
  });
});
