/**
 * How a durable link finds its peer again. The source dials, with longer and longer pauses; the destination lets it in.
 * All connections are made anew each time, as one attempt: a later attempt ends what is left of an earlier one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { RelayError } from '../errors.js';
import type { Endpoint, LinkConnection, LinkCredentials } from './connection.js';
import type { Answer, Door } from './door.js';
import { type Hello, UnknownSessionError } from './greeting.js';
import { dialAgain, type ResumedConnection } from './handshake.js';

/** The link that is to go on. */
export interface Interruptible {
  readonly session: string;
  readonly connections: number;
  /** Frames received whole, by the connection's number. Final while the link is interrupted. */
  received(connection: number): number;
  interrupt(cause: RelayError): void;
  /** @param connections - in their order */
  resume(connections: readonly ResumedConnection[]): void;
  /** The peer no longer knows this link. */
  replaced(cause: RelayError): void;
  fail(cause: RelayError): void;
}

export interface Reconnection {
  /** The link was interrupted. */
  seek(): void;
  /** Ends the search, and the listening. */
  stop(): void;
}

const firstPauseMs = 100;
const maxPauseMs = 5000;
/** Short, so that a network that is whole again is soon found to be: SYNs are repeated ever more rarely. */
const attemptMs = 3000;

/** The pause before an attempt, counted from 0. Half of it is left to chance: many links may have been cut at once. */
export function pauseMs(attempt: number, random = Math.random()): number {
  if (attempt === 0) return 0;
  return Math.min(maxPauseMs, firstPauseMs * 2 ** (attempt - 1)) * (0.5 + random / 2);
}

export class Redialling implements Reconnection {
  readonly #endpoint: Endpoint;
  readonly #credentials: LinkCredentials;
  readonly #link: Interruptible;
  #attempt = 0;
  #dialling: AbortController | null = null;

  constructor(endpoint: Endpoint, credentials: LinkCredentials, link: Interruptible) {
    this.#endpoint = endpoint;
    this.#credentials = credentials;
    this.#link = link;
  }

  seek(): void {
    const dialling = new AbortController();
    this.#dialling = dialling;
    void this.#search(dialling.signal);
  }

  stop(): void {
    this.#dialling?.abort();
    this.#dialling = null;
  }

  async #search(signal: AbortSignal): Promise<void> {
    const link = this.#link;
    for (let failures = 0; ; failures++) {
      try {
        await sleep(pauseMs(failures), undefined, { signal });
        const attempt = ++this.#attempt;
        const options = { connections: link.connections, timeoutMs: attemptMs, signal };
        const resumed = await dialAgain(this.#endpoint, this.#credentials, options, (connection) => ({
          session: link.session,
          attempt,
          received: link.received(connection),
        }));
        if (signal.aborted) return;
        this.#dialling = null;
        return link.resume(resumed);
      } catch (thrown) {
        if (signal.aborted) return;
        if (thrown instanceof UnknownSessionError) return link.replaced(thrown);
        if (thrown instanceof RelayError && thrown.code === 'VMMIG_LINK_INCOMPATIBLE') return link.fail(thrown);
        // Nobody there, or somebody else: the peer may come back.
      }
    }
  }
}

export class Readmission implements Reconnection {
  readonly #door: Door;
  readonly #link: Interruptible;
  #attempt = 0;
  /** Whether some of the attempt's connections are still to come. */
  #isGathering = false;
  readonly #entered = new Map<number, ResumedConnection>();

  constructor(door: Door, link: Interruptible) {
    this.#door = door;
    this.#link = link;
    door.keeper = {
      answer: (hello) => this.#answer(hello),
      entered: (peer, hello) => this.#enter(peer, hello),
    };
  }

  seek(): void {}

  stop(): void {
    this.#door.close();
    this.#drop();
  }

  #answer({ resume, connection, connections }: Hello): Answer {
    const link = this.#link;
    if (resume === undefined) {
      // The source relay was started anew: it will find the port free, or whoever listens there next.
      setImmediate(() => link.replaced(new RelayError('VMMIG_LINK_LOST', 'the source relay was started anew')));
      return { refuse: 'this relay has just given up an older link', unknownSession: true };
    }
    if (resume.session !== link.session) return { refuse: 'this relay has another link', unknownSession: true };
    if (connections !== link.connections) return { refuse: 'the link had other connections', unknownSession: false };
    const isNew = resume.attempt > this.#attempt;
    if (!isNew && (resume.attempt < this.#attempt || !this.#isGathering || this.#entered.has(connection)))
      return { refuse: 'the attempt is over', unknownSession: false };
    if (isNew) {
      this.#attempt = resume.attempt;
      this.#drop();
      this.#isGathering = true;
      // From here on nothing more is taken from the old connections: what was received is final.
      link.interrupt(new RelayError('VMMIG_LINK_LOST', 'the source relay connects again'));
    }
    return { welcome: { received: link.received(connection) } };
  }

  #enter(peer: LinkConnection, { resume, connection }: Hello): void {
    const isCurrent = this.#isGathering && resume?.attempt === this.#attempt && !this.#entered.has(connection);
    if (!isCurrent) return void peer.tls.on('error', () => {}).destroy();
    this.#entered.set(connection, { peer, received: resume.received });
    if (this.#entered.size < this.#link.connections) return;
    const resumed = [...this.#entered].sort(([left], [right]) => left - right).map(([, entered]) => entered);
    this.#entered.clear();
    this.#isGathering = false;
    this.#link.resume(resumed);
  }

  #drop(): void {
    this.#isGathering = false;
    for (const { peer } of this.#entered.values()) peer.tls.on('error', () => {}).destroy();
    this.#entered.clear();
  }
}
