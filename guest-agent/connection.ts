/**
 * One session with the agent over a byte stream: the greeting, frames in and out, and the end of it. What the frames
 * mean is the client's business.
 */

import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { createDeferred } from './deferred.js';
import { AgentError } from './errors.js';
import { type AgentHello, decodeError, decodeHello } from './messages.js';
import { PAGE_BYTES } from './pages.js';
import { encodeFrame, type Frame, FrameDecoder, frameType, PROTOCOL_VERSION } from './protocol.js';

/** A HELLO may meet a guest that is paused, or the rest of an earlier conversation: it is repeated until answered. */
const HELLO_INTERVAL_MS = 250;

export type AgentTarget = { path: string } | { stream: Duplex };

export interface ConnectionHandlers {
  onFrame(frame: Frame): void;
  /** Called once, when the connection is of no more use. */
  onEnd(cause: AgentError): void;
}

export class AgentConnection {
  readonly #stream: Duplex;
  readonly #session = randomBytes(8);
  readonly #decoder = new FrameDecoder(this.#session);
  #handlers: ConnectionHandlers | undefined;
  #endCause: AgentError | undefined;

  constructor(target: AgentTarget) {
    this.#stream = 'stream' in target ? target.stream : createConnection({ path: target.path });
    this.#stream.on('data', (bytes: Buffer) => this.#receive(bytes));
    this.#stream.on('error', (cause) => {
      this.end(
        new AgentError('VMMIG_AGENT_DISCONNECTED', `The guest agent's port failed: ${cause.message}`, { cause }),
      );
    });
    const ended = () => this.end(new AgentError('VMMIG_AGENT_DISCONNECTED', "The guest agent's port was closed"));
    this.#stream.on('end', ended);
    this.#stream.on('close', ended);
  }

  /** Why the connection ended, once it has. */
  get endCause(): AgentError | undefined {
    return this.#endCause;
  }

  /**
   * Says hello until the agent answers, or the time is over: then there is no result.
   * @throws AgentError `VMMIG_AGENT_UNAVAILABLE`, `VMMIG_AGENT_VERSION`, `VMMIG_AGENT_UNSUPPORTED`
   */
  async greet(timeoutMs: number, signal?: AbortSignal): Promise<AgentHello | undefined> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = createDeferred<AgentHello | undefined>();
    const aborted = () => reject(signal?.reason);
    const hello = () => this.send(frameType.hello, 0, Uint8Array.of(PROTOCOL_VERSION, PROTOCOL_VERSION));
    const repeat = setInterval(hello, HELLO_INTERVAL_MS);
    const deadline = setTimeout(() => resolve(undefined), timeoutMs);
    signal?.addEventListener('abort', aborted, { once: true });
    this.handle({
      onFrame: (frame) => {
        try {
          resolve(readGreeting(frame));
        } catch (error) {
          reject(error);
        }
      },
      onEnd: (cause) =>
        reject(new AgentError('VMMIG_AGENT_UNAVAILABLE', `No guest agent answers: ${cause.message}`, { cause })),
    });
    hello();
    try {
      return await promise;
    } finally {
      clearInterval(repeat);
      clearTimeout(deadline);
      signal?.removeEventListener('abort', aborted);
    }
  }

  /** Sets who gets frames and the end from now on. An end in the past is told at once. */
  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    if (this.#endCause) handlers.onEnd(this.#endCause);
  }

  send(type: number, request: number, payload: Uint8Array = new Uint8Array(0)): void {
    if (!this.#endCause) this.#stream.write(encodeFrame(type, this.#session, request, payload));
  }

  /** Closes the stream. The first cause counts. */
  end(cause: AgentError): void {
    if (this.#endCause) return;
    this.#endCause = cause;
    this.#stream.destroy();
    this.#handlers?.onEnd(cause);
  }

  #receive(bytes: Buffer): void {
    if (this.#endCause) return;
    try {
      this.#decoder.feed(bytes, (frame) => this.#handlers?.onFrame(frame));
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      this.end(error);
    }
  }
}

function readGreeting(frame: Frame): AgentHello {
  if (frame.type === frameType.error) {
    const code = decodeError(frame.payload);
    throw new AgentError('VMMIG_AGENT_VERSION', `The guest agent refuses protocol version 1 (error ${code})`);
  }
  const hello = decodeHello(frame.payload);
  if (hello.protocolVersion !== PROTOCOL_VERSION) {
    throw new AgentError('VMMIG_AGENT_VERSION', `The guest agent speaks protocol version ${hello.protocolVersion}`);
  }
  if (hello.pageSizeBytes !== PAGE_BYTES) {
    throw new AgentError('VMMIG_AGENT_UNSUPPORTED', `The guest has pages of ${hello.pageSizeBytes} bytes`);
  }
  return hello;
}
