/**
 * The port on which the destination relay is reached: lets in whoever has the migration's key and says hello, and
 * keeps strangers from holding it up. Who comes in, and what becomes of them, is for its keeper to say.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { RelayError } from '../errors.js';
import { acceptConnection, type LinkConnection, type LinkCredentials } from './connection.js';
import { frameType, linkVersion } from './frames.js';
import { firstFrame, type Hello, maxConnections, parseGreeting, refuse, sendJson, whyNot } from './greeting.js';

const helloTimeoutMs = 10_000;

export interface DoorOptions {
  readonly host?: string;
  /** First and last port to try; any free one otherwise. */
  readonly ports?: readonly [number, number];
}

/** What a peer with the key is told: what its welcome says besides the version, or why it is not welcome. */
export type Answer = { readonly welcome: object } | { readonly refuse: string; readonly unknownSession: boolean };

export interface DoorKeeper {
  answer(hello: Hello): Answer;
  entered(peer: LinkConnection, hello: Hello): void;
  /** A peer with the key that no answer was asked for: it speaks another version, or nonsense. */
  incompatible?(error: RelayError): void;
}

export class Door implements AsyncDisposable {
  /** Without a keeper, everybody is turned away at once. */
  keeper: DoorKeeper | null = null;
  readonly port: number;
  readonly #server: Server;
  readonly #credentials: LinkCredentials;
  /** Those that were not let in, or not yet, the oldest first. */
  readonly #strangers = new Set<Socket>();

  private constructor(server: Server, port: number, credentials: LinkCredentials) {
    this.#server = server;
    this.port = port;
    this.#credentials = credentials;
    server.on('connection', (socket) => this.#knock(socket));
  }

  static async open(credentials: LinkCredentials, options: DoorOptions): Promise<Door> {
    const server = createServer();
    return new Door(server, await bind(server, options), credentials);
  }

  get isOpen(): boolean {
    return this.#server.listening;
  }

  /** Frees the port and drops whoever has not been let in. */
  close(): void {
    this.keeper = null;
    this.#server.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #knock(socket: Socket): void {
    socket.on('error', () => {});
    if (this.keeper === null) return void socket.destroy();
    // Whoever has not shown the key may neither make this process hold many sockets nor take the peer's place.
    const [oldest] = this.#strangers;
    if (this.#strangers.size >= 2 * maxConnections) oldest?.destroy();
    this.#strangers.add(socket);
    socket.on('close', () => this.#strangers.delete(socket));
    this.#greet(socket).catch((error: RelayError) => {
      socket.destroy();
      if (error.code === 'VMMIG_LINK_INCOMPATIBLE') this.keeper?.incompatible?.(error);
    });
  }

  async #greet(socket: Socket): Promise<void> {
    const peer = await acceptConnection(socket, this.#credentials, helloTimeoutMs);
    const frame = await firstFrame(peer.tls, helloTimeoutMs);
    const hello = parseGreeting(frame) as unknown as Hello;
    const problem = whyNot(frame, hello, this.#credentials);
    if (problem !== null) {
      await refuse(peer.tls, problem, false);
      throw new RelayError('VMMIG_LINK_INCOMPATIBLE', problem);
    }
    const answer = this.keeper?.answer(hello);
    if (answer === undefined) return void socket.destroy();
    if ('refuse' in answer) {
      await refuse(peer.tls, answer.refuse, answer.unknownSession);
      return void socket.destroy();
    }
    sendJson(peer.tls, frameType.welcome, { version: linkVersion, ...answer.welcome });
    this.#strangers.delete(socket);
    if (this.keeper === null) socket.destroy();
    else this.keeper.entered(peer, hello);
  }
}

async function bind(server: Server, options: DoorOptions): Promise<number> {
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
