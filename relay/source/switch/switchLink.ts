/**
 * The link of a switch's source relay. It outlives its connections, and from the switch on even the relay on the other
 * side: when another one takes that one's place, what is sent goes to the new one, over a link of its own.
 */
import type { RelayError } from '../../errors.js';
import { BulkWindow } from '../../link/bulkWindow.js';
import type { Endpoint, LinkConnection, LinkCredentials } from '../../link/connection.js';
import { DurableLink, durableConnections } from '../../link/durableLink.js';
import { interruptingSilenceMs } from '../../link/durableLinkOptions.js';
import type { Frame } from '../../link/frames.js';
import { dial } from '../../link/handshake.js';
import { TokenBucket } from '../../link/tokenBucket.js';

export interface SwitchLinkOptions {
  readonly credentials: LinkCredentials;
  /** For bulk data; one more is for what is urgent. */
  readonly connections: number;
  readonly bandwidthBps: number | null;
  /** So long the destination may be out of reach after the switch. */
  readonly reconnectTimeoutMs: number;
  /** And while the guest is the source's; as long when left open. */
  readonly reconnectTimeoutBeforeMs?: number;
}

export interface SwitchLinkHandlers {
  frame(frame: Frame): void;
  /** More would go out soon. */
  drained(): void;
  interrupted(cause: RelayError): void;
  resumed(gapMs: number): void;
  /** There is no link any more. */
  lost(cause: RelayError): void;
}

export interface SwitchLinkState {
  readonly bytesOnWire: number;
  readonly rttMs: number;
  readonly connections: number;
  readonly reconnects: number;
  /** How often another destination relay has taken the place of the one before. */
  readonly takeovers: number;
  readonly isConnected: boolean;
}

/** What is still under way then takes no time to speak of. */
const freeLineBytes = 256 * 1024;

export class SwitchLink {
  readonly #options: SwitchLinkOptions;
  readonly #handlers: SwitchLinkHandlers;
  #window = new BulkWindow();
  #bucket: TokenBucket | null;
  #current: DurableLink | null = null;
  #endpoint: Endpoint | null = null;
  #hasSwitched = false;
  /** Of links that are gone. */
  #past = { bytesOnWire: 0, reconnects: 0, takeovers: 0 };

  constructor(options: SwitchLinkOptions, handlers: SwitchLinkHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#bucket = this.#newBucket();
    this.#window.favourThroughput();
  }

  /** @throws RelayError VMMIG_LINK_… when nobody is met there */
  async dial(endpoint: Endpoint): Promise<LinkConnection[]> {
    const { credentials, connections } = this.#options;
    return await dial(endpoint, credentials, { connections: durableConnections(connections) });
  }

  /** From now on what is sent goes to these peers, which were met at `endpoint`, and to nobody else. */
  use(peers: readonly LinkConnection[], endpoint: Endpoint): void {
    const old = this.#current;
    if (old !== null) this.#leave(old);
    const link: DurableLink = new DurableLink(
      peers,
      {
        immediate: (frame) => this.#handlers.frame(frame),
        lost: (cause) => {
          if (link === this.#current) this.#handlers.lost(cause);
        },
        interrupted: (cause) => this.#handlers.interrupted(cause),
        resumed: (gapMs) => this.#handlers.resumed(gapMs),
        drained: () => this.#handlers.drained(),
      },
      { bucket: this.#bucket, bulkWindow: this.#window },
    );
    this.#current = link;
    this.#endpoint = endpoint;
    const { credentials, reconnectTimeoutMs, reconnectTimeoutBeforeMs = reconnectTimeoutMs } = this.#options;
    const by = { dial: endpoint, credentials };
    link.endure({ reconnectTimeoutMs: reconnectTimeoutBeforeMs, silenceLimitMs: interruptingSilenceMs, by });
    if (this.#hasSwitched) link.expedite(reconnectTimeoutMs);
  }

  /** The guest goes: what it waits for there is not to queue behind bulk data. */
  favourLatency(): void {
    this.#window.favourLatency();
  }

  /** The guest may be the destination's: what it needs may be here and nowhere else. */
  switched(): void {
    this.#hasSwitched = true;
    this.#current?.expedite(this.#options.reconnectTimeoutMs);
  }

  /** @returns the frame's sequence number */
  sendOrdered(type: number, payload: Buffer): number {
    return this.#link.sendOrdered(type, payload);
  }

  sendUrgent(type: number, payload: Buffer, sequence?: number): void {
    this.#link.sendUrgent(type, payload, sequence);
  }

  ping(): void {
    this.#link.ping();
  }

  /** Whether more bulk data would go out soon; `drained` is called when it becomes so. */
  get isOpenForBulk(): boolean {
    return this.#current?.isOpenForBulk ?? false;
  }

  /** Of what is urgent, that the destination is not known to have received. */
  get urgentBytes(): number {
    return this.#current?.urgentBytes ?? 0;
  }

  /** Whether next to nothing of what was sent is still under way. */
  get isFree(): boolean {
    return this.#window.inFlightBytes <= freeLineBytes;
  }

  isConnectedTo({ host, port }: Endpoint): boolean {
    return this.#current?.isConnected === true && this.#endpoint?.host === host && this.#endpoint.port === port;
  }

  get isConnected(): boolean {
    return this.#current?.isConnected ?? false;
  }

  get rttMs(): number {
    return this.#current?.rttMs ?? 0;
  }

  get state(): SwitchLinkState {
    const link = this.#current;
    return {
      bytesOnWire: this.#past.bytesOnWire + (link?.bytesOnWire ?? 0),
      rttMs: this.rttMs,
      connections: link?.connections ?? 0,
      reconnects: this.#past.reconnects + (link?.reconnects ?? 0),
      takeovers: this.#past.takeovers,
      isConnected: this.isConnected,
    };
  }

  /** Ends it at once, if there is one; `lost` is called. */
  fail(cause: RelayError): void {
    this.#current?.fail(cause);
  }

  /** Ends it, if there is one, when what was sent has gone out. */
  async close(): Promise<void> {
    await this.#current?.close();
  }

  /**
   * What the peer has not taken, and what it was sent beyond the cap, the next one does not wait for: the guest there
   * stands still until that one knows of its memory.
   */
  #leave(old: DurableLink): void {
    const { bytesOnWire, reconnects, takeovers } = this.#past;
    this.#past = {
      bytesOnWire: bytesOnWire + old.bytesOnWire,
      reconnects: reconnects + old.reconnects,
      takeovers: takeovers + 1,
    };
    this.#window = new BulkWindow();
    this.#bucket = this.#newBucket();
    void old.close();
  }

  #newBucket(): TokenBucket | null {
    const { bandwidthBps } = this.#options;
    return bandwidthBps === null ? null : new TokenBucket(bandwidthBps);
  }

  /** Nothing is sent before it is there: QEMU's stream waits for it. */
  get #link(): DurableLink {
    return this.#current!;
  }
}
