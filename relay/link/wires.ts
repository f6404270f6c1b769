/**
 * The connections under a durable link's lanes, as long as they last: reads frames from them, says when one breaks, and
 * ends them. Which frames mean what is for its owner, but for the goodbye that tells an end from a cut.
 */
import { RelayError } from '../errors.js';
import { limitUnsent } from '../socketOptions.js';
import { closeLimitMs, hungUp, type LinkConnection } from './connection.js';
import { encodeFrameHeader, type Frame, FrameDecoder, frameHeaderBytes, frameType } from './frames.js';
import type { ResumedConnection } from './handshake.js';
import { Lane } from './lane.js';
import type { SendingWindow } from './sendingWindow.js';

export interface WireHandlers {
  /** @returns whether the frame has a number in its lane */
  frame(frame: Frame): boolean;
  /** After each chunk: its bytes, and the numbered frames that it completed. */
  arrived(lengthBytes: number, frames: number): void;
  /** A connection takes more. */
  drained(): void;
  /** A connection is gone. After a goodbye it was meant to be: `isFarewell`. */
  broken(cause: RelayError, isFarewell: boolean): void;
  /** What the peer sent is no frame, or the handler threw. */
  malformed(cause: RelayError): void;
}

/** One connection can be silent while others are not: one of its frames waits for its turn, or for packets that were lost. */
const oneSilenceFactor = 4;
/** A goodbye comes so much later than the end of another connection at most. */
const goodbyeLimitMs = 200;

/** What may wait on this host, on each connection. */
type Limits = Pick<SendingWindow, 'backlogBytes' | 'unsentBytes'>;

export class Wires {
  readonly lanes: readonly Lane[];
  readonly #unsentBytes: number | null;
  readonly #handlers: WireHandlers;
  #peers: readonly LinkConnection[] = [];
  #pastBytes = 0;
  #peerLeaves = false;
  #holdsBulk = false;

  constructor(count: number, { backlogBytes, unsentBytes }: Limits, handlers: WireHandlers) {
    this.lanes = Array.from({ length: count }, () => new Lane(backlogBytes));
    this.#unsentBytes = unsentBytes;
    this.#handlers = handlers;
  }

  get isConnected(): boolean {
    return this.#peers.length > 0;
  }

  /** In both directions, over all connections that there were. */
  get bytesOnWire(): number {
    return this.#pastBytes + bytesOf(this.#peers);
  }

  /** @throws RelayError when the peer claims to have received what was not sent */
  connect(connections: readonly ResumedConnection[]): void {
    this.#peers = connections.map(({ peer }) => peer);
    for (const [at, { peer, received }] of connections.entries()) {
      this.lanes[at]!.resume(peer, received);
      this.#attach(this.lanes[at]!, peer);
    }
  }

  /** Whether nothing is read of bulk data: the other side sends no more of it than the network holds. */
  holdBulk(isHeld: boolean): void {
    this.#holdsBulk = isHeld;
    for (const lane of this.lanes.slice(1)) {
      lane.heardAtMs = performance.now();
      if (isHeld) lane.peer?.tls.pause();
      else lane.peer?.tls.resume();
    }
  }

  /** Drops the connections, and with them what they have not delivered. */
  disconnect(): void {
    this.#pastBytes += bytesOf(this.#peers);
    for (const { tls } of this.#peers) tls.destroy();
    this.#peers = [];
    for (const lane of this.lanes) lane.interrupt();
  }

  /** Ends the connections so that the peer knows it is meant; resolves when they are closed. */
  async hangUp(): Promise<void> {
    const peers = this.#peers;
    for (const lane of this.lanes) {
      lane.addControl(encodeFrameHeader(frameType.goodbye, 0, 0));
      lane.write(0);
      lane.interrupt();
    }
    for (const { tls } of peers) tls.end();
    await Promise.all(peers.map(({ tls }) => hungUp(tls)));
    this.disconnect();
  }

  /**
   * For how long a connection has been silent that should not have been; 0 when all is well.
   * @param limitMs - of all; null: of the first, which carries what is urgent, as short as round trips allow
   */
  silentMs(limitMs: number | null, rttMs: number, nowMs: number): number {
    const lanes = this.lanes.slice(0, this.#holdsBulk ? 1 : undefined);
    const silences = lanes.map(({ heardAtMs }) => nowMs - heardAtMs);
    const [silentMs, allowedMs] =
      limitMs === null ? [silences[0]!, 3 * rttMs + 2000] : [Math.min(...silences), limitMs];
    if (silentMs > allowedMs) return silentMs;
    const longestMs = Math.max(...silences);
    return longestMs > oneSilenceFactor * allowedMs ? longestMs : 0;
  }

  #attach(lane: Lane, peer: LinkConnection): void {
    const decoder = new FrameDecoder();
    const { tls, socket } = peer;
    let wholeBytes = 0;
    if (this.#unsentBytes !== null && lane !== this.lanes[0]) limitUnsent(socket, this.#unsentBytes);
    lane.heardAtMs = performance.now();
    tls.on('data', (chunk: Buffer) => {
      if (lane.peer !== peer) return;
      lane.heardAtMs = performance.now();
      const before = lane.received;
      try {
        for (const frame of decoder.feed(chunk)) {
          // What is not handled now is not counted: it comes again over the connection that has taken this one's place.
          if (lane.peer !== peer) return;
          if (frame.type === frameType.goodbye) this.#peerLeaves = true;
          else if (this.#handlers.frame(frame)) {
            lane.received++;
            wholeBytes += frameHeaderBytes + frame.payload.length;
          }
        }
      } catch (thrown) {
        const isKnown = thrown instanceof RelayError;
        return this.#handlers.malformed(
          isKnown ? thrown : new RelayError('VMMIG_LINK_PROTOCOL', String(thrown), thrown),
        );
      }
      // A header that came in part may be one of a frame that has no number, and no payload then.
      lane.arrivedBytes = wholeBytes + Math.max(0, decoder.bufferedBytes - frameHeaderBytes);
      this.#handlers.arrived(chunk.length, lane.received - before);
    });
    tls.on('drain', () => this.#handlers.drained());
    tls.on('error', (cause) => {
      // After a goodbye, the other connections may still have to say why.
      if (lane.peer === peer && !this.#peerLeaves)
        this.#handlers.broken(new RelayError('VMMIG_LINK_LOST', 'the link between the relays broke', cause), false);
    });
    tls.on('close', () => this.#closed(lane, peer));
    // The greeting left it paused.
    if (!this.#holdsBulk || lane === this.lanes[0]) tls.resume();
    if (tls.closed) setImmediate(() => this.#closed(lane, peer));
  }

  #closed(lane: Lane, peer: LinkConnection): void {
    const tell = () => {
      if (lane.peer !== peer) return;
      const cause = new RelayError('VMMIG_LINK_LOST', 'the other relay closed the link');
      this.#handlers.broken(cause, this.#peerLeaves);
    };
    if (this.#peers.every(({ tls }) => tls.closed)) tell();
    // The others may still bring the peer's reason, or a goodbye: a frame that was cut off leaves no place for one.
    else setTimeout(tell, this.#peerLeaves ? closeLimitMs : goodbyeLimitMs).unref();
  }
}

function bytesOf(peers: readonly LinkConnection[]): number {
  return peers.reduce((sum, { socket }) => sum + socket.bytesRead + socket.bytesWritten, 0);
}
