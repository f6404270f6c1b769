/**
 * The link of a switch's destination relay. It outlives its connections, and from the switch on even the relay on the
 * other side: when another one is to take that one's place, it is awaited, and has a link of its own.
 */
import type { RelayError } from '../../errors.js';
import type { LinkCredentials } from '../../link/connection.js';
import { DurableLink } from '../../link/durableLink.js';
import { interruptingSilenceMs } from '../../link/durableLinkOptions.js';
import type { Frame } from '../../link/frames.js';
import { type Listener, type ListenOptions, listen } from '../../link/handshake.js';

export interface SourceLinkOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** So long the source may be out of reach after the switch. */
  readonly reconnectTimeoutMs: number;
  /** And while the guest is the source's; as long when left open. */
  readonly reconnectTimeoutBeforeMs?: number | undefined;
  /** The guest has switched already, and the source is told to come when this listens. */
  readonly takesOver: boolean;
}

export interface SourceLinkHandlers {
  ordered(frame: Frame): void;
  immediate(frame: Frame): void;
  /** There is no link any more, or none has come about. */
  lost(cause: RelayError): void;
  interrupted(cause: RelayError): void;
  resumed(gapMs: number): void;
}

export class SourceLink implements AsyncDisposable {
  readonly #options: SourceLinkOptions;
  readonly #handlers: SourceLinkHandlers;
  #listener: Listener;
  #current: DurableLink | null = null;
  /** Another source has taken, or is to take, the place of the one before. */
  #hasChanged = false;
  #holdsBulk = false;
  #hasSwitched: boolean;
  /** Of links that are gone. */
  #past = { bytesOnWire: 0, reconnects: 0 };

  private constructor(options: SourceLinkOptions, handlers: SourceLinkHandlers, listener: Listener) {
    this.#options = options;
    this.#handlers = handlers;
    this.#listener = listener;
    this.#hasSwitched = options.takesOver;
    this.#join(listener);
  }

  /** Listens for the source relay. */
  static async open(options: SourceLinkOptions, handlers: SourceLinkHandlers): Promise<SourceLink> {
    const patience = options.takesOver ? { timeoutMs: options.reconnectTimeoutMs } : {};
    const listener = await listen(options.credentials, { ...options.listen, ...patience, staysOpen: true });
    return new SourceLink(options, handlers, listener);
  }

  /** Where the source is awaited. */
  get port(): number {
    return this.#listener.port;
  }

  get state() {
    const { bytesOnWire, reconnects } = this.#past;
    const link = this.#current;
    const isSecond = this.#options.takesOver || this.#hasChanged;
    return {
      bytesOnWire: bytesOnWire + (link?.bytesOnWire ?? 0),
      rttMs: link?.rttMs ?? 0,
      isConnected: link?.isConnected ?? false,
      hasTakenOver: isSecond,
      awaitsSource: isSecond && link === null,
      reconnects: reconnects + (link?.reconnects ?? 0),
    };
  }

  /** The present link; null while a source is awaited. */
  get current(): DurableLink | null {
    return this.#current;
  }

  /**
   * The source has died, and another one is told to come: with the same key, to a port that may be another one. What the
   * one before has sent and was not handed on yet still is.
   */
  async awaitAnother(): Promise<void> {
    const old = this.#current;
    this.#current = null;
    this.#hasChanged = true;
    const { bytesOnWire, reconnects } = this.#past;
    if (old !== null)
      this.#past = { bytesOnWire: bytesOnWire + old.bytesOnWire, reconnects: reconnects + old.reconnects };
    await this.#listener[Symbol.asyncDispose]();
    await old?.close();
    const { credentials, listen: options, reconnectTimeoutMs } = this.#options;
    this.#listener = await listen(credentials, { ...options, timeoutMs: reconnectTimeoutMs, staysOpen: true });
    this.#join(this.#listener);
  }

  /** The guest is this side's: what it needs may be there and nowhere else. */
  switched(): void {
    this.#hasSwitched = true;
    this.#current!.expedite(this.#options.reconnectTimeoutMs);
  }

  /** While what has come cannot be handled. */
  holdBulk(isHeld: boolean): void {
    this.#holdsBulk = isHeld;
    this.#current?.holdBulk(isHeld);
  }

  send(type: number, sequence: number, payload: Buffer): void {
    this.#current?.send(type, sequence, payload);
  }

  sendUrgent(type: number, payload: Buffer): void {
    this.#current?.sendUrgent(type, payload);
  }

  /** When what was sent has gone out. */
  async close(): Promise<void> {
    await this.#current?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#listener[Symbol.asyncDispose]();
    await this.close();
  }

  #join(listener: Listener): void {
    const handlers = this.#handlers;
    listener.joined
      .then((peers) => {
        const link: DurableLink = new DurableLink(peers, {
          ordered: (frame) => handlers.ordered(frame),
          immediate: (frame) => handlers.immediate(frame),
          lost: (cause) => {
            if (link === this.#current) handlers.lost(cause);
          },
          interrupted: (cause) => handlers.interrupted(cause),
          resumed: (gapMs) => handlers.resumed(gapMs),
        });
        this.#current = link;
        link.holdBulk(this.#holdsBulk);
        const { reconnectTimeoutMs, reconnectTimeoutBeforeMs = reconnectTimeoutMs } = this.#options;
        const by = { accept: listener };
        link.endure({ reconnectTimeoutMs: reconnectTimeoutBeforeMs, silenceLimitMs: interruptingSilenceMs, by });
        if (this.#hasSwitched) link.expedite(reconnectTimeoutMs);
      })
      .catch((cause: RelayError) => {
        if (listener === this.#listener) handlers.lost(cause);
      });
  }
}
