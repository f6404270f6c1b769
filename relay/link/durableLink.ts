/**
 * A link that survives the network, and lets urgent frames overtake: for as long as a guest runs whose memory is still on
 * the other side. Frames are as on `Link`; these come on top:
 *
 * - From `endure` on, a connection that breaks or falls silent is not the end. Every frame is kept until the other side
 *   has received it; new connections go on where the old ones were cut. Each frame arrives once.
 * - The first connection is for urgent and small frames. Bulk data goes over the others, a slice at a time, no more of it
 *   under way than `BulkWindow` says, so that what overtakes on this host does not queue in the network instead.
 *
 * Both sides have to use it: what one has received is told by a frame of its own.
 */
import { RelayError } from '../errors.js';
import { BulkSender } from './bulkSender.js';
import { BulkWindow } from './bulkWindow.js';
import type { LinkConnection } from './connection.js';
import type { DurableLinkHandlers, DurableLinkOptions, EndureOptions } from './durableLinkOptions.js';
import { encodeFrameHeader, type Frame, frameType, isOrdered } from './frames.js';
import { maxConnections, type ResumedConnection } from './handshake.js';
import { Heartbeat } from './heartbeat.js';
import { OrderedInbox } from './inbox.js';
import type { Lane } from './lane.js';
import { decodeReceipt, encodeReceipt, ReceiptSchedule } from './receipts.js';
import { Search } from './search.js';
import type { SendingWindow } from './sendingWindow.js';
import { sessionOf } from './session.js';
import type { TokenBucket } from './tokenBucket.js';
import { Wires } from './wires.js';

/** How many connections to dial when there are to be so many for bulk data. */
export function durableConnections(bulkConnections: number): number {
  return Math.min(maxConnections, bulkConnections + 1);
}

const defaultSilenceLimitMs = 10_000;
/** Of what is not urgent, frames up to this size take the first connection all the same. */
const smallBytes = 4096;

export class DurableLink implements AsyncDisposable {
  readonly connections: number;
  readonly #handlers: DurableLinkHandlers;
  /** What both sides call this link. */
  readonly session: string;
  readonly #wires: Wires;
  readonly #urgent: Lane;
  readonly #bulkLanes: readonly Lane[];
  readonly #bulk: BulkSender;
  readonly #window: SendingWindow;
  readonly #bucket: TokenBucket | null;
  readonly #heartbeat: Heartbeat;
  readonly #receipts: ReceiptSchedule;
  readonly #inbox: OrderedInbox;
  /** Null: what is urgent must not be held up. */
  #silenceLimitMs: number | null;
  #nextToSend = 0;
  /** Null before a lost connection is not the end. */
  #search: Search | null = null;
  #reconnects = 0;
  #ended = false;
  #ending: Promise<void> | null = null;

  /** @param peers - two at least (`durableConnections`), in the same order on both sides, as `dial` and `listen` give them */
  constructor(peers: readonly LinkConnection[], handlers: DurableLinkHandlers, options: DurableLinkOptions = {}) {
    if (peers.length < 2)
      throw new RelayError('VMMIG_LINK_INCOMPATIBLE', 'a link that is to endure has two connections or more');
    this.connections = peers.length;
    this.#handlers = handlers;
    this.session = sessionOf(peers);
    this.#window = options.bulkWindow ?? new BulkWindow();
    this.#receipts = new ReceiptSchedule(() => this.#tellReceived(), options.receiptDelayMs);
    this.#wires = new Wires(peers.length, this.#window, {
      frame: (frame) => this.#receive(frame),
      arrived: (lengthBytes, frames) => this.#receipts.received(lengthBytes, frames),
      drained: () => this.#bulk.pump(),
      broken: (cause, isFarewell) => this.#broken(cause, isFarewell),
      malformed: (cause) => this.fail(cause),
    });
    this.#urgent = this.#wires.lanes[0]!;
    this.#bulkLanes = this.#wires.lanes.slice(1);
    this.#bucket = options.bucket ?? null;
    this.#heartbeat = new Heartbeat({
      send: (type, payload) => this.#control(type, payload),
      measured: (elapsedMs, nowMs) => this.#window.roundTrip(elapsedMs, nowMs),
      beat: (nowMs) => this.#beat(nowMs),
      isBusy: () => this.isConnected && this.#window.needsRoundTrips && this.#window.inFlightBytes > 0,
    });
    this.#bulk = new BulkSender(this.#bulkLanes, this.#window, this.#bucket, {
      wrote: () => this.#heartbeat.busy(),
      drained: () => {
        if (!this.#ended) this.#handlers.drained?.();
      },
    });
    this.#inbox = new OrderedInbox((frame) => this.#handlers.ordered?.(frame));
    this.#silenceLimitMs = options.silenceLimitMs ?? defaultSilenceLimitMs;
    this.#wires.connect(peers.map((peer) => ({ peer, received: 0 })));
  }

  /** Smallest round trip measured, 0 before the first. */
  get rttMs(): number {
    return this.#heartbeat.rttMs;
  }

  /** Smallest of the last few, which queues may have made longer; 0 before the first. */
  get recentRttMs(): number {
    return this.#heartbeat.recentRttMs;
  }

  /** The way has become longer: what was measured before says nothing of it. */
  forgetRtt(): void {
    this.#heartbeat.forgetRtt();
  }

  /** What crossed the network in both directions: TLS records and handshakes, without TCP/IP headers. */
  get bytesOnWire(): number {
    return this.#wires.bytesOnWire;
  }

  /** Kept because the other side is not known to have received it. */
  get unreceivedBytes(): number {
    return this.#wires.lanes.reduce((sum, lane) => sum + lane.keptBytes, this.#bulk.queuedBytes);
  }

  /** The part of it that was urgent. */
  get urgentBytes(): number {
    return this.#urgent.keptBytes;
  }

  get isConnected(): boolean {
    return this.#wires.isConnected;
  }

  get reconnects(): number {
    return this.#reconnects;
  }

  /** While this side cannot handle what it has got, it takes no more of it. What is urgent arrives all the same. */
  holdBulk(isHeld: boolean): void {
    this.#wires.holdBulk(isHeld);
  }

  /** Whether more bulk data would go out soon; `drained` is called when it becomes so. What is sent regardless queues. */
  get isOpenForBulk(): boolean {
    return !this.#ended && this.#bulk.isOpen;
  }

  /** @returns the frame's sequence number. */
  sendOrdered(type: number, payload: Buffer): number {
    const sequence = this.#nextToSend++;
    if (!this.#ended) this.#bulk.add(encodeFrameHeader(type, sequence, payload.length), payload);
    return sequence;
  }

  /** Handled as it arrives. A large one is bulk data, any other goes as `sendUrgent` does. */
  send(type: number, sequence: number, payload: Buffer): void {
    if (payload.length <= smallBytes) this.sendUrgent(type, payload, sequence);
    else if (!this.#ended) this.#bulk.add(encodeFrameHeader(type, sequence, payload.length), payload);
  }

  /** Overtakes everything but other urgent frames. Handled as it arrives, so it cannot be of an ordered type. */
  sendUrgent(type: number, payload: Buffer, sequence = 0): void {
    if (isOrdered(type)) throw new TypeError(`frames of type ${type} are handled in their order`);
    if (this.#ended) return;
    this.#urgent.add(encodeFrameHeader(type, sequence, payload.length), payload);
    this.#writeUrgent();
  }

  /** From now on a lost connection is not the end. Once; both sides, before the first frame that must not be lost. */
  endure(options: EndureOptions): void {
    if (this.#search !== null) throw new TypeError('the link endures already');
    const link = {
      session: this.session,
      connections: this.connections,
      received: (connection: number) => this.#wires.lanes[connection]!.received,
      interrupt: (cause: RelayError) => this.#interrupt(cause),
      resume: (connections: readonly ResumedConnection[]) => this.#resume(connections),
      replaced: (cause: RelayError) => this.#replaced(cause),
      fail: (cause: RelayError) => this.fail(cause),
    };
    this.#search = new Search(options, link);
    this.#silenceLimitMs = options.silenceLimitMs ?? null;
    if (this.#ended) this.#search.stop();
  }

  /** After `endure`: from now on somebody waits for what is urgent, so silence is noticed soon; and the peer may be out of reach for so long. */
  expedite(reconnectTimeoutMs: number): void {
    this.#search!.limitMs = reconnectTimeoutMs;
    this.#silenceLimitMs = null;
  }

  /** Measures the round trip. It is done twice a second anyway. */
  ping(): void {
    this.#heartbeat.ping();
  }

  /** Ends the link without calling `lost`. What was sent before is flushed, if the peer can be reached. */
  async close(): Promise<void> {
    if (!this.#ended) {
      this.#ended = true;
      this.#ending = this.#bulk.flushed(() => this.isConnected).then(() => this.#release());
    }
    await this.#ending;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Ends the link at once and tells the handler why. */
  fail(cause: RelayError): void {
    if (this.#end()) this.#handlers.lost(cause);
  }

  #receive(frame: Frame): boolean {
    switch (frame.type) {
      case frameType.ping:
        this.#heartbeat.heard(frame.payload);
        return false;
      case frameType.pong:
        this.#heartbeat.pong(frame.payload);
        return false;
      case frameType.received:
        this.#hearReceived(frame.payload);
        return false;
    }
    if (this.#ended) return true;
    if (isOrdered(frame.type)) this.#inbox.add(frame);
    else this.#handlers.immediate(frame);
    return true;
  }

  #hearReceived(payload: Buffer): void {
    const { bulkBytes, frames } = decodeReceipt(payload, this.connections);
    for (const [at, count] of frames.entries()) this.#wires.lanes[at]!.forget(count);
    this.#bulk.received(bulkBytes, performance.now());
    this.#bulk.pump();
    if (!this.#ended) this.#handlers.received?.();
  }

  #tellReceived(): void {
    this.#control(frameType.received, encodeReceipt(this.#wires.lanes));
  }

  #control(type: number, payload: Buffer): void {
    // A peer that does not read gets no more of what it can do without.
    if (type === frameType.pong && !this.#urgent.isWritable) return;
    this.#urgent.addControl(Buffer.concat([encodeFrameHeader(type, 0, payload.length), payload]));
    this.#writeUrgent();
  }

  #writeUrgent(): void {
    const written = this.#urgent.write(Infinity);
    if (written > 0) this.#bucket?.take(written);
  }

  #beat(nowMs: number): void {
    if (!this.isConnected) return;
    const silentMs = this.#wires.silentMs(this.#silenceLimitMs, this.rttMs, nowMs);
    if (silentMs > 0) {
      const message = `the other relay has been silent for ${Math.round(silentMs)} ms`;
      return this.#broken(new RelayError('VMMIG_LINK_LOST', message), false);
    }
    this.#receipts.flush();
    for (const lane of this.#bulkLanes) lane.keepAlive(encodeFrameHeader(frameType.ping, 0, 0));
  }

  #broken(cause: RelayError, isFarewell: boolean): void {
    if (this.#search === null || isFarewell) this.fail(cause);
    else this.#interrupt(cause);
  }

  #interrupt(cause: RelayError): void {
    if (!this.isConnected) return;
    this.#wires.disconnect();
    if (this.#ended) return;
    this.#search?.begin(cause);
    this.#handlers.interrupted?.(cause);
  }

  #resume(connections: readonly ResumedConnection[]): void {
    const gapMs = this.#search!.found();
    this.#bulk.reset();
    try {
      this.#wires.connect(connections);
    } catch (thrown) {
      for (const { peer } of connections) peer.tls.on('error', () => {}).destroy();
      return this.fail(thrown as RelayError);
    }
    this.#reconnects++;
    this.#handlers.resumed?.(gapMs);
    this.ping();
    this.#writeUrgent();
    this.#bulk.pump();
  }

  #replaced(cause: RelayError): void {
    if (!this.#end()) return;
    if (this.#handlers.replaced === undefined) this.#handlers.lost(cause);
    else this.#handlers.replaced(cause);
  }

  /** @returns whether it had not ended before */
  #end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#ending = this.#release();
    return true;
  }

  async #release(): Promise<void> {
    this.#search?.stop();
    this.#heartbeat.stop();
    this.#receipts.stop();
    this.#bulk.stop();
    await this.#wires.hangUp();
  }
}
