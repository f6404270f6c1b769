/**
 * How two relays meet. The source opens every connection and says hello on it; the destination
 * answers with welcome, or with the reason why not.
 *
 *   hello   = JSON { protocol: 'vmmig-link', version, migrationId, connection, connections }
 *   welcome = JSON { version }
 *   refuse  = JSON { message }
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { RelayError } from '../errors.js';
import {
  acceptConnection,
  type Endpoint,
  type LinkConnection,
  type LinkCredentials,
  openConnection,
} from './connection.js';
import { encodeFrameHeader, type Frame, FrameDecoder, frameType, linkVersion } from './frames.js';

export const maxConnections = 16;
const helloTimeoutMs = 10_000;
const refusalReadMs = 1000;

interface Hello {
  readonly protocol: string;
  readonly version: number;
  readonly migrationId: string;
  readonly connection: number;
  readonly connections: number;
}

/** Opens all connections of a link. The version can be set to show what an incompatible peer is told. */
export async function dial(
  endpoint: Endpoint,
  credentials: LinkCredentials,
  options: { connections: number; timeoutMs?: number; version?: number },
): Promise<LinkConnection[]> {
  const timeoutMs = options.timeoutMs ?? helloTimeoutMs;
  const opened: LinkConnection[] = [];
  try {
    const attempts = Array.from({ length: options.connections }, async (_, connection) => {
      const peer = await openConnection(endpoint, credentials, timeoutMs);
      opened.push(peer);
      const hello: Hello = {
        protocol: 'vmmig-link',
        version: options.version ?? linkVersion,
        migrationId: credentials.migrationId,
        connection,
        connections: options.connections,
      };
      sendJson(peer.tls, frameType.hello, hello);
      const answer = await firstFrame(peer.tls, timeoutMs);
      if (answer.type === frameType.refuse)
        throw new RelayError('VMMIG_LINK_INCOMPATIBLE', `the destination relay refused: ${parse(answer).message}`);
      if (answer.type !== frameType.welcome)
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination relay did not answer the greeting');
      return peer;
    });
    return await all(attempts);
  } catch (thrown) {
    for (const { tls } of opened) tls.destroy();
    throw thrown;
  }
}

/** All results. Waits for every attempt, so that none leaves a connection behind; a refusal is the reason to give. */
async function all<T>(attempts: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(attempts);
  const reasons = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason as RelayError);
  if (reasons.length > 0) throw reasons.find(({ code }) => code === 'VMMIG_LINK_INCOMPATIBLE') ?? reasons[0];
  return outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
}

export interface Listener extends AsyncDisposable {
  readonly port: number;
  /** All connections of the link; the listener is closed by then. */
  readonly joined: Promise<LinkConnection[]>;
}

export interface ListenOptions {
  readonly host?: string;
  /** First and last port to try; any free one otherwise. */
  readonly ports?: readonly [number, number];
  /** The source has so long to connect. */
  readonly timeoutMs?: number;
}

/** Listens for one source relay, and no longer than until it has joined. */
export async function listen(credentials: LinkCredentials, options: ListenOptions = {}): Promise<Listener> {
  const server = createServer();
  const port = await bind(server, options);
  const sockets = new Set<Socket>();
  /** Those that have not shown the key, the oldest first. */
  const strangers = new Set<Socket>();
  const peers = new Map<number, LinkConnection>();
  let expected = 0;
  let stop: (error: RelayError) => void = () => {};
  const joined = new Promise<LinkConnection[]>((resolve, reject) => {
    const timer = setTimeout(
      () => stop(new RelayError('VMMIG_LINK_CONNECT', 'the source relay did not connect in time')),
      options.timeoutMs ?? 60_000,
    );
    stop = (error) => {
      clearTimeout(timer);
      server.close();
      for (const socket of sockets) socket.destroy();
      reject(error);
    };
    server.on('connection', (socket) => {
      // Whoever has not shown the key may neither make this process hold many sockets nor take the peer's place.
      const [oldest] = strangers;
      if (strangers.size >= 2 * maxConnections) oldest?.destroy();
      sockets.add(socket);
      strangers.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        strangers.delete(socket);
      });
      greet(socket, credentials).then(
        ({ peer, hello }) => {
          strangers.delete(socket);
          expected = hello.connections;
          peers.set(hello.connection, peer);
          if (peers.size < expected) return;
          clearTimeout(timer);
          server.close();
          for (const stranger of strangers) stranger.destroy();
          resolve([...peers.values()]);
        },
        (error: RelayError) => {
          socket.destroy();
          // A stranger is no reason to give up on the peer; a peer of another version is.
          if (error.code === 'VMMIG_LINK_INCOMPATIBLE') stop(error);
        },
      );
    });
  });
  joined.catch(() => {});
  return {
    port,
    joined,
    async [Symbol.asyncDispose]() {
      if (server.listening) stop(new RelayError('VMMIG_RELAY_ABORTED', 'the listener was closed'));
    },
  };
}

async function greet(socket: Socket, credentials: LinkCredentials): Promise<{ peer: LinkConnection; hello: Hello }> {
  const peer = await acceptConnection(socket, credentials, helloTimeoutMs);
  const frame = await firstFrame(peer.tls, helloTimeoutMs);
  const hello = parse(frame) as unknown as Hello;
  const problem = whyNot(frame, hello, credentials);
  if (problem !== null) {
    sendJson(peer.tls, frameType.refuse, { message: problem });
    await hungUp(peer.tls);
    throw new RelayError('VMMIG_LINK_INCOMPATIBLE', problem);
  }
  sendJson(peer.tls, frameType.welcome, { version: linkVersion });
  return { peer, hello };
}

/** Ends a connection, and waits until the peer has had time to read why. */
async function hungUp(tls: TLSSocket): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, refusalReadMs);
    tls
      .on('error', () => {})
      .once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    tls.resume().end();
  });
}

function whyNot(frame: Frame, hello: Hello, credentials: LinkCredentials): string | null {
  if (frame.type !== frameType.hello || hello.protocol !== 'vmmig-link') return 'the peer is not a vmmig relay';
  if (hello.version !== linkVersion)
    return `this relay speaks link version ${linkVersion}, the other one ${hello.version}: install the same vmmig on both hosts`;
  if (hello.migrationId !== credentials.migrationId) return 'the peer belongs to another migration';
  const { connection, connections } = hello;
  if (!Number.isInteger(connections) || connections < 1 || connections > maxConnections)
    return `a link has 1 to ${maxConnections} connections`;
  if (!Number.isInteger(connection) || connection < 0 || connection >= connections) return 'no such connection';
  return null;
}

/** Reads exactly one frame; what follows it goes back into the socket. */
function firstFrame(tls: TLSSocket, timeoutMs: number): Promise<Frame> {
  return new Promise((resolve, reject) => {
    const decoder = new FrameDecoder();
    const finish = (error: RelayError | null, frame?: Frame) => {
      clearTimeout(timer);
      tls.off('data', onData).off('close', onClose).off('error', onClose);
      tls.pause();
      const rest = decoder.takeRest();
      if (rest.length > 0) tls.unshift(rest);
      if (frame === undefined) reject(error);
      else resolve(frame);
    };
    const onClose = () => finish(new RelayError('VMMIG_LINK_LOST', 'the other relay hung up during the greeting'));
    const onData = (chunk: Buffer) => {
      try {
        for (const frame of decoder.feed(chunk)) return finish(null, frame);
      } catch (thrown) {
        finish(thrown as RelayError);
      }
    };
    const timer = setTimeout(
      () => finish(new RelayError('VMMIG_LINK_CONNECT', 'the other relay did not greet in time')),
      timeoutMs,
    );
    tls.on('data', onData).on('close', onClose).on('error', onClose);
    tls.resume();
  });
}

function parse(frame: Frame): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(frame.payload.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed greeting');
}

function sendJson(tls: TLSSocket, type: number, value: object): void {
  const payload = Buffer.from(JSON.stringify(value));
  tls.write(Buffer.concat([encodeFrameHeader(type, 0, payload.length), payload]));
}

async function bind(server: Server, options: ListenOptions): Promise<number> {
  const [first, last] = options.ports ?? [0, 0];
  let cause: unknown;
  for (let port = first; port <= last; port++) {
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        const host = options.host === undefined ? {} : { host: options.host };
        server.listen({ port, ...host, backlog: maxConnections }, () => {
          server.off('error', reject);
          resolve();
        });
      });
      return (server.address() as { port: number }).port;
    } catch (thrown) {
      cause = thrown;
    }
  }
  throw new RelayError('VMMIG_LINK_CONNECT', `no port between ${first} and ${last} is free for the link`, cause);
}
