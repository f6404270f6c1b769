/**
 * The link: frames over one or several connections. Ordered frames go out on whichever connection is
 * least busy and are handed over in their order; all others as they arrive. Knows nothing of what
 * frames mean, but for the pings by which it measures the round trip and notices a dead peer.
 */
import { RelayError } from '../errors.js';
import { closeLimitMs, hungUp, type LinkConnection } from './connection.js';
import { encodeFrameHeader, type Frame, FrameDecoder, frameHeaderBytes, frameType, isOrdered } from './frames.js';
import { OrderedInbox } from './inbox.js';
import type { TokenBucket } from './tokenBucket.js';

export interface LinkHandlers {
  /** An ordered frame, in order. */
  ordered?(frame: Frame): void;
  /** Any other frame, as it arrives. */
  immediate(frame: Frame): void;
  /** Once, when the link is gone; not after `close()`. */
  lost(cause: RelayError): void;
}

export interface LinkOptions {
  /** A peer that has been silent for so long is gone. */
  readonly silenceLimitMs?: number;
  /** Caps what is sent. */
  readonly bucket?: TokenBucket | null;
}

const pingIntervalMs = 500;
const maxPingBytes = 64;
/** Of what waits for the peer; a ping that is not answered is no more than a round trip that is not measured. */
const maxPongBacklogBytes = 64 * 1024 * 1024;
const defaultSilenceLimitMs = 10_000;
/** What a bandwidth cap still holds up when the link is closed has so long to go out. */
const flushLimitMs = 5000;

export class Link implements AsyncDisposable {
  readonly connections: number;
  readonly #peers: LinkConnection[];
  readonly #handlers: LinkHandlers;
  readonly #bucket: TokenBucket | null;
  readonly #timer: NodeJS.Timeout;
  readonly #inbox: OrderedInbox;
  #nextToSend = 0;
  #lastHeardAtMs = performance.now();
  #rttMs = 0;
  #ended = false;
  #closing: Promise<void> | null = null;
  /** What the bandwidth cap holds up: whole frames. */
  #queue: Buffer[] = [];
  #draining: Promise<void> | null = null;
  /** The connection with a frame that has gone out in part; nothing else may come between. */
  #busy: LinkConnection | null = null;
  #postponed: Buffer[] = [];

  constructor(peers: LinkConnection[], handlers: LinkHandlers, options: LinkOptions = {}) {
    this.#peers = peers;
    this.connections = peers.length;
    this.#handlers = handlers;
    this.#bucket = options.bucket ?? null;
    this.#inbox = new OrderedInbox((frame) => this.#handlers.ordered?.(frame));
    for (const peer of peers) this.#attach(peer);
    const silenceLimitMs = options.silenceLimitMs ?? defaultSilenceLimitMs;
    this.#timer = setInterval(() => this.#beat(silenceLimitMs), pingIntervalMs);
    this.#timer.unref();
  }

  /** Smallest round trip measured, 0 before the first. */
  get rttMs(): number {
    return this.#rttMs;
  }

  /** What crossed the network in both directions: TLS records and handshakes, without TCP/IP headers. */
  get bytesOnWire(): number {
    return this.#peers.reduce((sum, { socket }) => sum + socket.bytesRead + socket.bytesWritten, 0);
  }

  /** @returns the frame's sequence number. */
  sendOrdered(type: number, payload: Buffer): number {
    const sequence = this.#nextToSend++;
    this.#write(type, sequence, payload);
    return sequence;
  }

  send(type: number, sequence: number, payload: Buffer): void {
    this.#write(type, sequence, payload);
  }

  /** Ends the link without calling `lost`. What was sent before is flushed. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Ends the link at once and tells the handler why. */
  fail(cause: RelayError): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    for (const { tls } of this.#peers) tls.destroy();
    this.#handlers.lost(cause);
  }

  #attach({ tls }: LinkConnection): void {
    const decoder = new FrameDecoder();
    tls.on('data', (chunk: Buffer) => {
      this.#lastHeardAtMs = performance.now();
      try {
        for (const frame of decoder.feed(chunk)) if (!this.#ended) this.#receive(frame);
      } catch (thrown) {
        this.fail(
          thrown instanceof RelayError ? thrown : new RelayError('VMMIG_LINK_PROTOCOL', String(thrown), thrown),
        );
      }
    });
    tls.on('error', (cause) =>
      this.fail(new RelayError('VMMIG_LINK_LOST', 'the link between the relays broke', cause)),
    );
    tls.on('close', () => this.#closed());
    if (tls.closed) setImmediate(() => this.#closed());
    tls.resume(); // the greeting left it paused
  }

  /** A peer that closes its link closes all connections; what is still under way on the others may be its reason. */
  #closed(): void {
    const cause = new RelayError('VMMIG_LINK_LOST', 'the other relay closed the link');
    if (this.#peers.every(({ tls }) => tls.closed)) return this.fail(cause);
    setTimeout(() => this.fail(cause), closeLimitMs).unref();
  }

  #receive(frame: Frame): void {
    if (frame.type === frameType.ping) return this.#pong(frame.payload);
    if (frame.type === frameType.pong) return this.#measure(frame.payload);
    if (!isOrdered(frame.type)) return this.#handlers.immediate(frame);
    this.#inbox.add(frame);
  }

  #write(type: number, sequence: number, payload: Buffer): void {
    if (this.#ended) return;
    const header = encodeFrameHeader(type, sequence, payload.length);
    if (this.#bucket === null || !isOrdered(type)) {
      this.#bucket?.take(payload.length + frameHeaderBytes);
      return this.#put(header, payload);
    }
    this.#queue.push(Buffer.concat([header, payload]));
    this.#draining ??= this.#drainAtRate(this.#bucket).finally(() => {
      this.#draining = null;
    });
  }

  /** Sends what is queued as fast as the bandwidth cap allows, in slices: a whole frame may last long. */
  async #drainAtRate(bucket: TokenBucket): Promise<void> {
    for (let frame = this.#queue.shift(); frame !== undefined; frame = this.#queue.shift()) {
      const peer = this.#idlest();
      this.#busy = peer;
      for (let at = 0; at < frame.length; at += bucket.sliceBytes) {
        const slice = frame.subarray(at, at + bucket.sliceBytes);
        await bucket.wait(slice.length);
        if (peer.tls.destroyed) return;
        peer.tls.write(slice);
      }
      this.#busy = null;
      for (const postponed of this.#postponed.splice(0)) peer.tls.write(postponed);
    }
  }

  #put(header: Buffer, payload: Buffer): void {
    if (this.#busy !== null && this.#peers.length === 1) {
      this.#postponed.push(header, payload);
      return;
    }
    const { tls } = this.#idlest();
    tls.cork();
    tls.write(header);
    if (payload.length > 0) tls.write(payload);
    tls.uncork();
  }

  #idlest(): LinkConnection {
    const peers = this.#peers.filter((peer) => peer !== this.#busy);
    return peers.reduce((idlest, peer) => (backlogOf(peer) < backlogOf(idlest) ? peer : idlest));
  }

  async #close(): Promise<void> {
    if (!this.#ended) {
      this.#ended = true;
      clearInterval(this.#timer);
      if (this.#draining !== null) await within(this.#draining, flushLimitMs);
      for (const { tls } of this.#peers) tls.end();
    }
    await Promise.all(this.#peers.map(({ tls }) => hungUp(tls)));
  }

  #beat(silenceLimitMs: number): void {
    const silentMs = performance.now() - this.#lastHeardAtMs;
    if (silentMs > silenceLimitMs)
      return this.fail(
        new RelayError('VMMIG_LINK_LOST', `the other relay has been silent for ${Math.round(silentMs)} ms`),
      );
    this.ping();
  }

  ping(): void {
    const payload = Buffer.alloc(8);
    payload.writeDoubleBE(performance.now());
    this.send(frameType.ping, 0, payload);
  }

  /** A peer that does not read what it is sent gets no more of it. */
  #pong(payload: Buffer): void {
    if (payload.length > maxPingBytes)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed ping');
    if (backlogOf(this.#idlest()) < maxPongBacklogBytes) this.send(frameType.pong, 0, payload);
  }

  #measure(payload: Buffer): void {
    if (payload.length !== 8) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed pong');
    const elapsedMs = performance.now() - payload.readDoubleBE(0);
    if (elapsedMs >= 0 && (this.#rttMs === 0 || elapsedMs < this.#rttMs)) this.#rttMs = elapsedMs;
  }
}

function backlogOf({ tls, socket }: LinkConnection): number {
  return tls.writableLength + socket.writableLength;
}

/** Resolves with the promise, or after the deadline. */
async function within(promise: Promise<void>, limitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    promise,
    new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs);
    }),
  ]);
  clearTimeout(timer);
}
