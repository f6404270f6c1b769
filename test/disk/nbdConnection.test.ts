import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { NbdConnection, type NbdConnectOptions } from '../../disk/nbd/connection.js';
import { PendingRead } from '../../disk/nbd/pendingRead.js';
import { Images, KiB } from './images.js';
import {
  be,
  blockSizes,
  chunk,
  dataChunk,
  errorChunk,
  exportInfo,
  greeting,
  holeChunk,
  negotiation,
  optionReply,
  type ReadRequest,
  ScriptedServer,
  simpleReply,
} from './nbdServer.js';

const diskBytes = 64 * KiB;
const cleanups: (() => Promise<unknown>)[] = [];
let images: Images;

beforeAll(async () => {
  images = await Images.open();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(() => images[Symbol.asyncDispose]());

async function connected(server: ScriptedServer, options: Partial<NbdConnectOptions> = {}): Promise<NbdConnection> {
  cleanups.push(async () => await server[Symbol.asyncDispose]());
  const connection = new NbdConnection({ path: server.path, ...options });
  cleanups.push(async () => connection.close());
  await connection.negotiated({ negotiationTimeoutMs: 2000, ...options });
  return connection;
}

/** Connects to a server that says this to whoever comes. */
async function negotiate(said: Buffer | ((socket: Socket) => void), options: Partial<NbdConnectOptions> = {}) {
  const script = typeof said === 'function' ? said : (socket: Socket) => void socket.write(said);
  return await connected(await ScriptedServer.start(images, script), options);
}

/** Connects to a server that answers reads like this. */
async function serving(answer: (request: ReadRequest) => Buffer | null, options: Partial<NbdConnectOptions> = {}) {
  return await connected(await ScriptedServer.reading(images, diskBytes, answer), options);
}

async function read(connection: NbdConnection, start: number, end: number): Promise<Buffer> {
  const target = Buffer.alloc(end - start, 0xee);
  await connection.read(new PendingRead(start, end, [{ start, end, target, targetOffset: 0 }]));
  return target;
}

describe('negotiation', () => {
  test('asks for the export, its block sizes and structured replies', async () => {
    const received: Buffer[] = [];
    const connection = await negotiate(
      (socket) => {
        socket.on('data', (bytes) => received.push(bytes));
        socket.write(negotiation(diskBytes, { min: 512, max: 8192 }));
      },
      { exportName: 'a' },
    );
    expect(connection.export).toEqual({
      sizeBytes: diskBytes,
      minBlockBytes: 512,
      maxRequestBytes: 8192,
      structuredReplies: true,
    });
    await expect
      .poll(() => Buffer.concat(received).toString('hex'))
      .toBe(
        [
          '00000003',
          '49484156454f5054' + '00000008' + '00000000',
          '49484156454f5054' + '00000007' + '00000009' + '00000001' + '61' + '0001' + '0003',
        ].join(''),
      );
  });

  test('does without structured replies, and without GO', async () => {
    const old = Buffer.concat([
      greeting(),
      optionReply(8, 2 ** 31 + 1),
      optionReply(7, 2 ** 31 + 1),
      ...[be(8, diskBytes), be(2, 3)],
    ]);
    expect((await negotiate(old)).export).toMatchObject({ sizeBytes: diskBytes, structuredReplies: false });
    const padded = Buffer.concat([greeting(0), be(8, diskBytes), be(2, 3), Buffer.alloc(124)]);
    expect((await negotiate(padded)).export).toMatchObject({ sizeBytes: diskBytes, minBlockBytes: 512 });
  });

  const asked = (...replies: Buffer[]) => Buffer.concat([greeting(), optionReply(8, 1), ...replies]);
  const magic = Buffer.from('0003e889045565a9', 'hex');

  test.each<[string, Buffer, RegExp]>([
    ['another protocol', Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian'), /greet/],
    ['replies to other options', Buffer.concat([greeting(), optionReply(7, 1)]), /not asked/],
    ['replies of a gigabyte', Buffer.concat([greeting(), magic, be(4, 8), be(4, 3), be(4, 2 ** 30)]), /1073741824/],
    ['replies of unknown types', Buffer.concat([greeting(), optionReply(8, 77)]), /77/],
    ['endless replies', asked(...Array<Buffer>(1000).fill(optionReply(7, 3, be(2, 9)))), /no end/],
    ['no size', asked(optionReply(7, 1)), /no size/],
    ['a size beyond belief', asked(exportInfo(2 ** 62)), /disk of/],
    ['infos that are too short', asked(optionReply(7, 3, be(2, 0))), /length/],
    ['empty infos', asked(optionReply(7, 3)), /nothing/],
    ['blocks of no bytes', asked(blockSizes(0, 1, 1)), /blocks/],
    ['blocks of three bytes', asked(blockSizes(3, 4, 5)), /blocks/],
    ['blocks longer than requests', asked(blockSizes(4096, 4096, 512)), /blocks/],
    ['huge blocks', asked(blockSizes(2 ** 31, 2 ** 31, 2 ** 31)), /blocks/],
  ])('refuses %s', async (_, said, message) => {
    await expect(negotiate(said)).rejects.toMatchObject({
      code: 'VMMIG_DISK_SERVER',
      message: expect.stringMatching(message),
    });
  });

  test('tells of a server that is too old, or has no such disk', async () => {
    const old = Buffer.concat([Buffer.from('NBDMAGIC'), Buffer.from('0000420281861253', 'hex')]);
    for (const [said, message] of [
      [old, /too old/],
      [asked(optionReply(7, 2 ** 31 + 6, Buffer.from('no such disk'))), /no such disk/],
    ] as const)
      await expect(negotiate(said)).rejects.toMatchObject({
        code: 'VMMIG_DISK_OPEN',
        message: expect.stringMatching(message),
      });
  });

  test('notices a server that hangs up, stays silent, trickles or is not there', async () => {
    const all = negotiation(diskBytes);
    for (let cut = 0; cut < all.length; cut += 7)
      await expect(negotiate((socket) => void socket.end(all.subarray(0, cut)))).rejects.toMatchObject({
        code: 'VMMIG_DISK_SERVER',
      });
    const impatient = { negotiationTimeoutMs: 100 };
    await expect(negotiate(() => {}, impatient)).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    const trickle = (socket: Socket) => {
      let at = 0;
      const timer = setInterval(() => socket.write(all.subarray(at, ++at)), 20);
      socket.on('close', () => clearInterval(timer));
    };
    await expect(negotiate(trickle, impatient)).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    const nobody = new NbdConnection({ path: images.path('nobody') });
    await expect(nobody.negotiated({})).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    await expect(nobody.connected()).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
  });

  test('ends when nobody wants it any more', async () => {
    const signal = AbortSignal.timeout(50);
    await expect(negotiate(() => {}, { signal })).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

describe('reads', () => {
  const content = randomBytes(diskBytes);
  const slice = ({ offset, lengthBytes }: ReadRequest) => content.subarray(offset, offset + lengthBytes);

  test('are answered in any order, in chunks or not', async () => {
    const queued: ReadRequest[] = [];
    const connection = await serving((request) => {
      queued.push(request);
      if (queued.length < 3) return Buffer.alloc(0);
      const [a, b, c] = queued.splice(0) as [ReadRequest, ReadRequest, ReadRequest];
      return Buffer.concat([
        dataChunk(c.cookie, c.offset + 100, slice(c).subarray(100)),
        dataChunk(a.cookie, a.offset, slice(a), true),
        holeChunk(b.cookie, b.offset + 50, b.lengthBytes - 50),
        dataChunk(c.cookie, c.offset, slice(c).subarray(0, 100)),
        dataChunk(b.cookie, b.offset, slice(b).subarray(0, 50), true),
        chunk(c.cookie, 0, Buffer.alloc(0), true),
      ]);
    });
    const [a, b, c] = await Promise.all([
      read(connection, 0, 1000),
      read(connection, 5, 500),
      read(connection, 7, 7000),
    ]);
    expect(a.equals(content.subarray(0, 1000))).toBe(true);
    expect(b.equals(Buffer.concat([content.subarray(5, 55), Buffer.alloc(445)]))).toBe(true);
    expect(c.equals(content.subarray(7, 7000))).toBe(true);

    const simple = await connected(
      await ScriptedServer.reading(images, diskBytes, (request) => simpleReply(request.cookie, slice(request)), {
        structured: false,
      }),
    );
    expect((await read(simple, 300, 3000)).equals(content.subarray(300, 3000))).toBe(true);
  });

  test('fail one by one', async () => {
    const connection = await serving((request) => {
      const { cookie, offset } = request;
      if (offset === 0) return errorChunk(cookie, 'bad sector', true);
      if (offset === 1)
        return Buffer.concat([errorChunk(cookie, 'bad sector', false, 1), errorChunk(cookie, 'x', true)]);
      if (offset === 2) return Buffer.concat([chunk(cookie, 2 ** 15 + 99, Buffer.concat([be(4, 28), be(2, 0)]), true)]);
      return dataChunk(cookie, offset, slice(request), true);
    });
    for (const [offset, message] of [
      [0, /bad sector/],
      [1, /bad sector/],
      [2, /28/],
    ] as const)
      await expect(read(connection, offset, 10)).rejects.toMatchObject({
        code: 'VMMIG_DISK_READ',
        message: expect.stringMatching(message),
      });
    expect((await read(connection, 3, 10)).equals(content.subarray(3, 10))).toBe(true);
    const simple = await connected(
      await ScriptedServer.reading(images, diskBytes, ({ cookie }) => simpleReply(cookie, Buffer.alloc(0), 5), {
        structured: false,
      }),
    );
    await expect(read(simple, 0, 10)).rejects.toMatchObject({ code: 'VMMIG_DISK_READ' });
    expect(simple.isOpen).toBe(true);
  });

  const tail = Buffer.alloc(90);
  test.each<[string, (request: ReadRequest) => Buffer | null]>([
    ['a cookie nobody gave', ({ cookie }) => dataChunk(cookie + 1, 0, tail, true)],
    ['a cookie of 64 bits', ({ cookie }) => dataChunk(cookie + 2 ** 40, 0, tail, true)],
    ['bytes before the read', ({ cookie }) => dataChunk(cookie, 5, tail)],
    ['bytes beyond the read', ({ cookie }) => dataChunk(cookie, 20, tail)],
    ['bytes at an offset beyond belief', ({ cookie }) => dataChunk(cookie, 2 ** 62, tail)],
    ['a hole beyond the read', ({ cookie }) => holeChunk(cookie, 10, 2 ** 31)],
    ['an empty hole', ({ cookie }) => holeChunk(cookie, 10, 0)],
    [
      'bytes twice',
      ({ cookie }) => Buffer.concat([dataChunk(cookie, 10, tail), dataChunk(cookie, 50, tail.subarray(0, 5))]),
    ],
    ['no bytes', ({ cookie }) => dataChunk(cookie, 10, Buffer.alloc(0), true)],
    ['too few bytes', ({ cookie }) => dataChunk(cookie, 10, tail.subarray(1), true)],
    [
      'four gigabytes',
      ({ cookie }) =>
        Buffer.concat([Buffer.from('668e33ef00000001', 'hex'), be(8, cookie), be(4, 2 ** 32 - 1), be(8, 10)]),
    ],
    ['a hole of the wrong length', ({ cookie }) => chunk(cookie, 2, Buffer.alloc(11))],
    ['a chunk of an unknown type', ({ cookie }) => chunk(cookie, 9, Buffer.alloc(8), true)],
    ['nothing, and that it is not done', ({ cookie }) => chunk(cookie, 0, Buffer.alloc(0))],
    ['the end before any bytes', ({ cookie }) => chunk(cookie, 0, Buffer.alloc(0), true)],
    ['an endless error message', ({ cookie }) => chunk(cookie, 2 ** 15 + 1, Buffer.alloc(100_000))],
    ['an error that is too short', ({ cookie }) => chunk(cookie, 2 ** 15 + 1, Buffer.alloc(3))],
    [
      'a message longer than its error',
      ({ cookie }) => chunk(cookie, 2 ** 15 + 1, Buffer.concat([be(4, 1), be(2, 99)])),
    ],
    ['an error elsewhere', ({ cookie }) => errorChunk(cookie, 'x', false, 4000)],
    ['endless errors', ({ cookie }) => Buffer.concat(Array<Buffer>(1000).fill(errorChunk(cookie, 'x')))],
    ['a simple reply', ({ cookie }) => simpleReply(cookie, tail)],
    ['noise', () => randomBytes(1000)],
    ['nothing: it hangs up', () => null],
    [
      'an answer after the answer',
      ({ cookie }) =>
        Buffer.concat([
          dataChunk(cookie, 10, tail.subarray(1)),
          dataChunk(cookie, 99, tail.subarray(89), true),
          chunk(cookie, 0, Buffer.alloc(0), true),
        ]),
    ],
  ])('make a server of no use that answers with %s', async (what, answer) => {
    const connection = await serving(answer);
    const reads = [read(connection, 10, 100), read(connection, 2000, 3000)].map((each) => each.catch((error) => error));
    const [first, second] = await Promise.all(reads);
    if (!what.startsWith('an answer after')) expect(first).toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    expect(second).toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    expect(connection).toMatchObject({ isOpen: false, readsUnderWay: 0 });
    await expect(read(connection, 0, 1)).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
  });

  test('do not wait for ever, however much comes meanwhile', async () => {
    const silent = await serving(() => Buffer.alloc(0), { readTimeoutMs: 100 });
    await expect(read(silent, 0, 10)).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    let answers = 0;
    const picky = await serving(
      (request) =>
        answers++ === 0 ? Buffer.alloc(0) : dataChunk(request.cookie, request.offset, slice(request), true),
      { readTimeoutMs: 600 },
    );
    const forgotten = read(picky, 0, 10).catch((error) => error);
    await expect(
      (async () => {
        for (;;) await read(picky, 10, 20);
      })(),
    ).rejects.toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    expect(await forgotten).toMatchObject({ code: 'VMMIG_DISK_SERVER' });
  });

  test('fail when the connection is closed, and so do later ones', async () => {
    const connection = await serving(() => Buffer.alloc(0));
    const waiting = read(connection, 0, 10).catch((error) => error);
    connection.close();
    expect(await waiting).toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
    await expect(read(connection, 0, 10)).rejects.toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
  });
});
