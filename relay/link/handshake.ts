/**
 * How two relays meet. The source opens every connection and says hello on it; the destination
 * answers with welcome, or with the reason why not. See greeting.ts for the words.
 */
import { RelayError } from '../errors.js';
import { type Endpoint, type LinkConnection, type LinkCredentials, openConnection } from './connection.js';
import { Door, type DoorOptions } from './door.js';
import { frameType, linkVersion } from './frames.js';
import {
  firstFrame,
  type Hello,
  maxConnections,
  parseGreeting,
  type Resume,
  sendJson,
  UnknownSessionError,
} from './greeting.js';
import { peerText } from './peerText.js';

export { maxConnections };

const helloTimeoutMs = 10_000;

export interface DialOptions {
  readonly connections: number;
  readonly timeoutMs?: number;
  /** Can be set to show what an incompatible peer is told. */
  readonly version?: number;
  /** Ends the dialling, and also connections that came of it: to be dropped once they are in use. */
  readonly signal?: AbortSignal;
}

/** Opens all connections of a link; connection `n` is the n-th on both sides. */
export async function dial(
  endpoint: Endpoint,
  credentials: LinkCredentials,
  options: DialOptions,
): Promise<LinkConnection[]> {
  return (await greetAll(endpoint, credentials, options, () => ({}))).map(({ peer }) => peer);
}

export interface ResumedConnection {
  readonly peer: LinkConnection;
  /** The frames of this connection's number that the other relay has received so far. */
  readonly received: number;
}

/**
 * Opens all connections of a link anew, for a link that goes on.
 *
 * @throws UnknownSessionError when the peer does not know the link
 */
export async function dialAgain(
  endpoint: Endpoint,
  credentials: LinkCredentials,
  options: DialOptions,
  resume: (connection: number) => Resume,
): Promise<ResumedConnection[]> {
  const greeted = await greetAll(endpoint, credentials, options, (connection) => ({ resume: resume(connection) }));
  return greeted.map(({ peer, welcome }) => ({ peer, received: Number(welcome.received) }));
}

interface Greeted {
  readonly peer: LinkConnection;
  readonly welcome: Record<string, unknown>;
}

async function greetAll(
  endpoint: Endpoint,
  credentials: LinkCredentials,
  options: DialOptions,
  extra: (connection: number) => Pick<Hello, 'resume'>,
): Promise<Greeted[]> {
  const timeoutMs = options.timeoutMs ?? helloTimeoutMs;
  const opened: LinkConnection[] = [];
  try {
    const attempts = Array.from({ length: options.connections }, async (_, connection) => {
      const peer = await openConnection(endpoint, credentials, timeoutMs, options.signal);
      opened.push(peer);
      const hello: Hello = {
        protocol: 'vmmig-link',
        version: options.version ?? linkVersion,
        migrationId: credentials.migrationId,
        connection,
        connections: options.connections,
        ...extra(connection),
      };
      sendJson(peer.tls, frameType.hello, hello);
      const answer = await firstFrame(peer.tls, timeoutMs);
      const words = parseGreeting(answer);
      if (answer.type === frameType.refuse) {
        const message = `the destination relay refused: ${peerText(words.message)}`;
        throw words.unknownSession === true
          ? new UnknownSessionError(message)
          : new RelayError('VMMIG_LINK_INCOMPATIBLE', message);
      }
      if (answer.type !== frameType.welcome)
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination relay did not answer the greeting');
      return { peer, welcome: words };
    });
    return await all(attempts);
  } catch (thrown) {
    for (const { tls } of opened) tls.on('error', () => {}).destroy();
    throw thrown;
  }
}

/** All results. Waits for every attempt, so that none leaves a connection behind; a refusal is the reason to give. */
async function all<T>(attempts: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(attempts);
  const reasons = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason as RelayError);
  const isRefusal = (reason: RelayError) =>
    reason.code === 'VMMIG_LINK_INCOMPATIBLE' || reason instanceof UnknownSessionError;
  if (reasons.length > 0) throw reasons.find(isRefusal) ?? reasons[0];
  return outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
}

export interface Listener extends AsyncDisposable {
  readonly port: number;
  /** All connections of the link, in their order; the listener is closed by then, unless it stays open. */
  readonly joined: Promise<LinkConnection[]>;
  readonly door: Door;
}

export interface ListenOptions extends DoorOptions {
  /** The source has so long to connect. */
  readonly timeoutMs?: number;
  /** The port is kept for a link that may have to be joined again (`DurableLink.endure`, which closes it). */
  readonly staysOpen?: boolean;
}

/** Listens for one source relay, and no longer than until it has joined. */
export async function listen(credentials: LinkCredentials, options: ListenOptions = {}): Promise<Listener> {
  const door = await Door.open(credentials, options);
  const peers = new Map<number, LinkConnection>();
  let isWaiting = true;
  let stop: (error: RelayError) => void = () => {};
  const joined = new Promise<LinkConnection[]>((resolve, reject) => {
    const timer = setTimeout(
      () => stop(new RelayError('VMMIG_LINK_CONNECT', 'the source relay did not connect in time')),
      options.timeoutMs ?? 60_000,
    );
    stop = (error) => {
      isWaiting = false;
      clearTimeout(timer);
      door.close();
      for (const { tls } of peers.values()) tls.on('error', () => {}).destroy();
      reject(error);
    };
    door.keeper = {
      answer: ({ resume }) =>
        resume === undefined
          ? { welcome: {} }
          : { refuse: 'this relay was started anew and waits for a new link', unknownSession: true },
      entered: (peer, hello) => {
        peers.set(hello.connection, peer);
        if (peers.size < hello.connections) return;
        isWaiting = false;
        clearTimeout(timer);
        door.keeper = null;
        if (options.staysOpen !== true) door.close();
        resolve([...peers].sort(([left], [right]) => left - right).map(([, peer]) => peer));
      },
      // A stranger is no reason to give up on the peer; a peer of another version is.
      incompatible: stop,
    };
  });
  joined.catch(() => {});
  return {
    port: door.port,
    joined,
    door,
    async [Symbol.asyncDispose]() {
      if (isWaiting) stop(new RelayError('VMMIG_RELAY_ABORTED', 'the listener was closed'));
      else door.close();
    },
  };
}
