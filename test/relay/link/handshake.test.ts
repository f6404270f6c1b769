import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { type LinkConnection, openConnection } from '../../../relay/link/connection.js';
import { frameType, linkVersion } from '../../../relay/link/frames.js';
import { type Resume, UnknownSessionError } from '../../../relay/link/greeting.js';
import { dial, dialAgain, type Listener, listen } from '../../../relay/link/handshake.js';
import { frameBytes, host, isListening, newCredentials, until } from '../peers.js';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function listening(credentials = newCredentials(), options: Parameters<typeof listen>[1] = {}) {
  const listener = await listen(credentials, { host, ...options });
  cleanups.push(() => dispose(listener));
  return { credentials, listener, endpoint: { host, port: listener.port } };
}

async function dispose(listener: Listener): Promise<void> {
  await listener[Symbol.asyncDispose]();
  const peers = await listener.joined.catch(() => []);
  for (const { tls } of peers) tls.on('error', () => {}).destroy();
}

async function dialed(...args: Parameters<typeof dial>) {
  const peers = await dial(...args);
  cleanups.push(() => {
    for (const { tls } of peers) tls.on('error', () => {}).destroy();
  });
  return peers;
}

async function stranger(port: number, say?: Buffer): Promise<Socket> {
  const socket = createConnection({ host, port });
  socket.on('error', () => {}).resume();
  cleanups.push(() => socket.destroy());
  await once(socket, 'connect');
  if (say !== undefined) socket.write(say);
  return socket;
}

describe('two relays that meet', () => {
  test.each([1, 2, 4, 16])('join over %i connections, and nobody listens any more', async (connections) => {
    const { credentials, listener, endpoint } = await listening();
    const [peers, accepted] = await Promise.all([dialed(endpoint, credentials, { connections }), listener.joined]);
    expect(peers).toHaveLength(connections);
    expect(accepted).toHaveLength(connections);
    for (const { tls } of [...peers, ...accepted]) {
      expect(tls.getProtocol()).toBe('TLSv1.3');
      expect(tls.getCipher().name).toBe('TLS_AES_128_GCM_SHA256');
    }
    expect(await isListening(endpoint.port)).toBe(false);
  });

  test('both say why when they speak other versions', async () => {
    // Several times, and with several connections: the reason must not be overtaken by the hanging up.
    for (let attempt = 0; attempt < 8; attempt++) {
      const { credentials, listener, endpoint } = await listening();
      const connections = 1 + (attempt % 4);
      await expect(dial(endpoint, credentials, { connections, version: 99 })).rejects.toMatchObject({
        code: 'VMMIG_LINK_INCOMPATIBLE',
        message: expect.stringMatching(new RegExp(`version ${linkVersion}.*99.*same vmmig on both hosts`)),
      });
      await expect(listener.joined).rejects.toMatchObject({
        code: 'VMMIG_LINK_INCOMPATIBLE',
        message: expect.stringMatching(new RegExp(`version ${linkVersion}.*99`)),
      });
      expect(await isListening(endpoint.port)).toBe(false);
    }
  });

  test('do not meet with another key, which leaves the listener to the one with the right key', async () => {
    const { credentials, listener, endpoint } = await listening();
    const wrong = { ...credentials, key: randomBytes(32) };
    await expect(dial(endpoint, wrong, { connections: 2 })).rejects.toMatchObject({ code: 'VMMIG_LINK_AUTH' });
    await Promise.all([dialed(endpoint, credentials, { connections: 2 }), listener.joined]);
  });

  test('do not meet when they were started for different migrations', async () => {
    const { credentials, listener, endpoint } = await listening();
    const other = { ...credentials, migrationId: 'another' };
    await expect(dial(endpoint, other, { connections: 1 })).rejects.toMatchObject({ code: 'VMMIG_LINK_AUTH' });
    await Promise.all([dialed(endpoint, credentials, { connections: 1 }), listener.joined]);
  });

  test.each([
    [
      'another migration',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'x', connection: 0, connections: 1 },
    ],
    [
      'another protocol',
      { protocol: 'http', version: linkVersion, migrationId: 'test', connection: 0, connections: 1 },
    ],
    [
      'no connections',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 0, connections: 0 },
    ],
    [
      'too many connections',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 0, connections: 17 },
    ],
    [
      'half a connection',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 0.5, connections: 2 },
    ],
    [
      'a connection too far',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 1, connections: 1 },
    ],
    [
      'texts for numbers',
      { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: '0', connections: '1' },
    ],
  ])('refuse a greeting with %s', async (_, hello) => {
    const { credentials, listener, endpoint } = await listening();
    const peer = await openConnection(endpoint, credentials, 2000);
    let answer = '';
    peer.tls
      .on('error', () => {})
      .on('data', (chunk: Buffer) => {
        answer += chunk.toString('latin1');
      });
    cleanups.push(() => peer.tls.destroy());
    peer.tls.write(frameBytes(frameType.hello, 0, JSON.stringify(hello)));
    await expect(listener.joined).rejects.toMatchObject({ code: 'VMMIG_LINK_INCOMPATIBLE' });
    expect(answer.charCodeAt(4)).toBe(frameType.refuse);
  });

  test('do not confuse a refusal that is no greeting at all', async () => {
    const { credentials, listener, endpoint } = await listening();
    for (const words of ['null', '[]', '"hello"', '{', '', '\u0000\u0001']) {
      const peer = await openConnection(endpoint, credentials, 2000);
      peer.tls.on('error', () => {});
      cleanups.push(() => peer.tls.destroy());
      peer.tls.write(frameBytes(frameType.hello, 0, words));
      const outcome = await Promise.race([
        once(peer.tls, 'close').then(() => 'closed'),
        listener.joined.catch((error: { code: string }) => error.code),
      ]);
      expect(['closed', 'VMMIG_LINK_INCOMPATIBLE']).toContain(outcome);
      if (outcome !== 'closed') break;
    }
  });
});

describe('strangers', () => {
  test('who stay silent, talk garbage or know no key do not hinder the real peer', async () => {
    const { credentials, listener, endpoint } = await listening();
    await stranger(endpoint.port);
    await stranger(endpoint.port, randomBytes(100_000));
    await stranger(endpoint.port, Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await stranger(endpoint.port, Buffer.from('16030100', 'hex'));
    const noKey = tlsConnect({ ...endpoint, rejectUnauthorized: false }).on('error', () => {});
    cleanups.push(() => noKey.destroy());
    const startMs = performance.now();
    await Promise.all([dialed(endpoint, credentials, { connections: 4 }), listener.joined]);
    expect(performance.now() - startMs).toBeLessThan(3000);
  });

  test('who hang up at once are forgotten', async () => {
    const { credentials, listener, endpoint } = await listening();
    for (let count = 0; count < 100; count++) (await stranger(endpoint.port)).destroy();
    await Promise.all([dialed(endpoint, credentials, { connections: 2 }), listener.joined]);
  });

  test('in any number do not hinder the real peer by saying nothing', async () => {
    const { credentials, listener, endpoint } = await listening();
    for (let count = 0; count < 60; count++) await stranger(endpoint.port);
    await Promise.all([dialed(endpoint, credentials, { connections: 4 }), listener.joined]);
  });

  test('are dropped when the real peer has joined', async () => {
    const { credentials, listener, endpoint } = await listening();
    const silent = await stranger(endpoint.port);
    await Promise.all([dialed(endpoint, credentials, { connections: 1 }), listener.joined]);
    if (!silent.closed) await once(silent, 'close');
  });
});

describe('a listener', () => {
  test('gives up after its time, and frees the port', async () => {
    const { listener, endpoint } = await listening(newCredentials(), { timeoutMs: 50 });
    const silent = await stranger(endpoint.port);
    await expect(listener.joined).rejects.toMatchObject({ code: 'VMMIG_LINK_CONNECT' });
    expect(await isListening(endpoint.port)).toBe(false);
    if (!silent.closed) await once(silent, 'close');
  });

  test('gives up after its time, too, when only some of the connections came', async () => {
    const { credentials, listener, endpoint } = await listening(newCredentials(), { timeoutMs: 200 });
    const peer = await openConnection(endpoint, credentials, 2000);
    peer.tls.on('error', () => {}).resume();
    const hello = { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 0, connections: 2 };
    peer.tls.write(frameBytes(frameType.hello, 0, JSON.stringify(hello)));
    await expect(listener.joined).rejects.toMatchObject({ code: 'VMMIG_LINK_CONNECT' });
    if (!peer.tls.closed) await once(peer.tls, 'close');
  });

  test('outlives a peer that breaks off between its connections', async () => {
    const { credentials, listener, endpoint } = await listening(newCredentials(), { timeoutMs: 400 });
    const peer = await openConnection(endpoint, credentials, 2000);
    peer.tls.on('error', () => {});
    const hello = { protocol: 'vmmig-link', version: linkVersion, migrationId: 'test', connection: 0, connections: 2 };
    peer.tls.write(frameBytes(frameType.hello, 0, JSON.stringify(hello)));
    await once(peer.tls, 'data');
    peer.socket.resetAndDestroy();
    await expect(listener.joined).rejects.toMatchObject({ name: 'RelayError' });
  });

  test('can stay open for a link that may have to be joined again, and turns others away', async () => {
    const { credentials, listener, endpoint } = await listening(newCredentials(), { staysOpen: true });
    const [, accepted] = await Promise.all([dialed(endpoint, credentials, { connections: 3 }), listener.joined]);
    expect(accepted).toHaveLength(3);
    expect(await isListening(endpoint.port)).toBe(true);
    await expect(dial(endpoint, credentials, { connections: 1 })).rejects.toMatchObject({ name: 'RelayError' });
    await listener[Symbol.asyncDispose]();
    expect(await isListening(endpoint.port)).toBe(false);
    expect(accepted.every(({ tls }) => !tls.destroyed)).toBe(true);
  });

  test('gives both sides the connections in one order', async () => {
    const { credentials, listener, endpoint } = await listening();
    const [peers, accepted] = await Promise.all([dialed(endpoint, credentials, { connections: 8 }), listener.joined]);
    expect(accepted.map(({ socket }) => socket.remotePort)).toEqual(peers.map(({ socket }) => socket.localPort));
  });

  test('tells a source that wants to resume that this relay does not know its link, and goes on waiting', async () => {
    const { credentials, listener, endpoint } = await listening();
    const resume = () => ({ session: 'unknown', attempt: 1, received: 0 });
    await expect(dialAgain(endpoint, credentials, { connections: 2 }, resume)).rejects.toBeInstanceOf(
      UnknownSessionError,
    );
    await Promise.all([dialed(endpoint, credentials, { connections: 2 }), listener.joined]);
  });

  test.each([
    ['nothing', null],
    ['a session that is no text', { session: 1, attempt: 1, received: 0 }],
    ['half an attempt', { session: 'x', attempt: 0.5, received: 0 }],
    ['what it has received as text', { session: 'x', attempt: 1, received: '0' }],
  ])('refuses a greeting that resumes %s', async (_, resume) => {
    const { credentials, endpoint } = await listening();
    await expect(
      dialAgain(endpoint, credentials, { connections: 1 }, () => resume as unknown as Resume),
    ).rejects.toMatchObject({ code: 'VMMIG_LINK_INCOMPATIBLE' });
  });

  test('is closed by its owner, which ends every connection', async () => {
    const { listener, endpoint } = await listening();
    const silent = await stranger(endpoint.port);
    await listener[Symbol.asyncDispose]();
    await expect(listener.joined).rejects.toMatchObject({ code: 'VMMIG_RELAY_ABORTED' });
    if (!silent.closed) await once(silent, 'close');
    expect(await isListening(endpoint.port)).toBe(false);
  });

  test('takes the first free port of its range, and says so when there is none', async () => {
    const taken = createServer().listen(0, host);
    await once(taken, 'listening');
    cleanups.push(() => new Promise((resolve) => taken.close(resolve)));
    const { port } = taken.address() as { port: number };
    await expect(listen(newCredentials(), { host, ports: [port, port] })).rejects.toMatchObject({
      code: 'VMMIG_LINK_CONNECT',
      message: expect.stringContaining(String(port)),
    });
    const { listener } = await listening(newCredentials(), { ports: [port, Math.min(65_535, port + 50)] });
    expect(listener.port).toBeGreaterThan(port);
  });
});

describe('a dial', () => {
  test('to a port where nobody listens says where it went', async () => {
    const { listener, endpoint, credentials } = await listening();
    await listener[Symbol.asyncDispose]();
    await expect(dial(endpoint, credentials, { connections: 2 })).rejects.toMatchObject({
      code: 'VMMIG_LINK_CONNECT',
      message: expect.stringContaining(`${host}:${endpoint.port}`),
    });
  });

  test.each([
    ['is silent', null],
    ['talks garbage', randomBytes(1000)],
    ['hangs up', Buffer.alloc(0)],
  ])('to a peer that %s ends in time, with a relay error', async (_, answer) => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket.on('error', () => {}).resume());
      if (answer?.length === 0) socket.destroy();
      else if (answer !== null) socket.write(answer);
    }).listen(0, host);
    await once(server, 'listening');
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const { port } = server.address() as { port: number };
    const startMs = performance.now();
    await expect(dial({ host, port }, newCredentials(), { connections: 2, timeoutMs: 200 })).rejects.toMatchObject({
      name: 'RelayError',
    });
    expect(performance.now() - startMs).toBeLessThan(2000);
    await until(() => sockets.every((socket) => socket.destroyed || socket.readableEnded || socket.closed));
  });

  test('to a peer that is silent does not say that it has another key', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).resume()).listen(0, host);
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const { port } = server.address() as { port: number };
    await expect(dial({ host, port }, newCredentials(), { connections: 1, timeoutMs: 150 })).rejects.toMatchObject({
      code: 'VMMIG_LINK_CONNECT',
      message: expect.stringContaining('did not answer the TLS handshake'),
    });
  });

  test('may break between its connections, which is no error that nobody handles', async () => {
    const { credentials, listener, endpoint } = await listening(newCredentials(), { timeoutMs: 1000 });
    const accepted = new Promise<LinkConnection>((resolve) => {
      listener.door.keeper = { answer: () => ({ welcome: {} }), entered: (peer) => resolve(peer) };
    });
    // Two connections are asked for, and the second is answered too late.
    const dialing = dial(endpoint, credentials, { connections: 2, timeoutMs: 400 }).catch((error: Error) => error);
    (await accepted).socket.resetAndDestroy();
    for (const peer of [await dialing].flat()) if ('tls' in peer) peer.tls.destroy();
  });

  test('that is ended by its caller leaves nothing open', async () => {
    for (const waitMs of [0, 1, 2, 4, 8, 16]) {
      const { credentials, listener, endpoint } = await listening();
      const dialling = new AbortController();
      const { signal } = dialling;
      const outcome = dial(endpoint, credentials, { connections: 3, timeoutMs: 1000, signal }).then(
        (peers) => peers,
        () => [],
      );
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      dialling.abort();
      const peers = await outcome;
      await until(() => peers.every(({ tls }) => tls.destroyed));
      await dispose(listener);
    }
  });

  test('that fails on one connection leaves none of the others open', async () => {
    const sockets: Socket[] = [];
    // Refuses the first, and takes its time with the others.
    const server = createServer((socket) => {
      sockets.push(socket.on('error', () => {}));
      if (sockets.length === 1) socket.destroy();
      else socket.resume();
    }).listen(0, host);
    await once(server, 'listening');
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const { port } = server.address() as { port: number };
    await expect(dial({ host, port }, newCredentials(), { connections: 4, timeoutMs: 300 })).rejects.toMatchObject({
      name: 'RelayError',
    });
    await until(() => sockets.length === 4 && sockets.every(({ closed }) => closed));
  });
});
