/** A session on a byte stream: moves bytes between the two, and ends both when one ends. */
import type { Duplex } from 'node:stream';
import type { QmpError } from './errors.js';
import { EventHub } from './eventHub.js';
import type { QmpGreeting } from './messages.js';
import { QmpSession, type QmpSessionOptions } from './session.js';

/** How long `close` waits for the stream to confirm: a dead SSH channel never does. */
const CLOSE_GRACE_MS = 1_000;

export interface Negotiated {
  readonly greeting: QmpGreeting;
  readonly oobEnabled: boolean;
}

export class QmpConnection {
  readonly session: QmpSession;
  readonly events = new EventHub();
  /** Rejects with the reason when the connection ends before it is negotiated. */
  readonly negotiated: Promise<Negotiated>;
  /** Why the connection ended. Never rejects. */
  readonly closed: Promise<QmpError | undefined>;
  readonly #stream: Duplex;

  /** Owns the stream from here on. */
  constructor(stream: Duplex, options: QmpSessionOptions) {
    this.#stream = stream;
    let ready: (negotiated: Negotiated) => void = () => undefined;
    let ended: (cause: QmpError | undefined) => void = () => undefined;
    this.closed = new Promise((resolve) => {
      ended = resolve;
    });
    this.negotiated = new Promise((resolve, reject) => {
      ready = resolve;
      this.closed.then(reject);
    });
    this.negotiated.catch(() => undefined);
    this.session = new QmpSession(
      {
        send: (text) => stream.write(text),
        ready: (greeting, oobEnabled) => ready({ greeting, oobEnabled }),
        event: (event) => this.events.publish(event),
        ended: (cause) => {
          stream.destroy();
          this.events.end(cause);
          ended(cause);
        },
      },
      options,
    );
    stream.on('data', (chunk: Uint8Array | string) => {
      this.session.receive(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    });
    // These stay for the stream's life: an error after the end must not crash the process.
    stream.on('error', (error) => this.session.receiveEnd(error));
    stream.on('end', () => this.session.receiveEnd());
    stream.on('close', () => this.session.receiveEnd());
  }

  /** Ends the session and destroys the stream; resolves when the stream is closed. */
  async end(cause?: QmpError): Promise<void> {
    this.session.end(cause);
    if (this.#stream.closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_GRACE_MS);
      this.#stream.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
