/**
 * One of a durable link's connections, as it outlives the TCP connections that carry it: the frames in their order,
 * kept until the other relay has received them. A frame's number is its place in the lane and does not cross the
 * network; after a cut each side says how many it has received, and the other goes on from there.
 *
 * Control frames (ping, pong, received, goodbye) have no number. They are not kept: a cut drops them.
 */
import { RelayError } from '../errors.js';
import type { LinkConnection } from './connection.js';
import { frameHeaderBytes } from './frames.js';

interface KeptFrame {
  readonly header: Buffer;
  readonly payload: Buffer;
}

export class Lane {
  /** Of the other relay's frames, those that arrived whole. */
  received = 0;
  /** Bytes of numbered frames that came over the present connection. */
  arrivedBytes = 0;
  peer: LinkConnection | null = null;
  /** When anything arrived last, on `performance.now()`'s clock. */
  heardAtMs = 0;
  #kept: KeptFrame[] = [];
  /** Number of the first frame that is kept. */
  #first = 0;
  /** Number of the frame that is written next, and how much of it has been. */
  #next = 0;
  #offset = 0;
  #keptBytes = 0;
  #unwrittenBytes = 0;
  #control: Buffer[] = [];

  /** @param backlogBytes - what may wait in this process for the kernel to take it */
  constructor(private readonly backlogBytes: number) {}

  /** Frames that the other relay is not known to have received. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  get keptFrames(): number {
    return this.#kept.length;
  }

  /** Those of them that have not been given to the connection. */
  get unwrittenBytes(): number {
    return this.#unwrittenBytes;
  }

  /** Whether the connection takes more without piling it up. */
  get isWritable(): boolean {
    const { peer } = this;
    return peer !== null && peer.tls.writableLength + peer.socket.writableLength < this.backlogBytes;
  }

  add(header: Buffer, payload: Buffer): void {
    this.#kept.push({ header, payload });
    this.#keptBytes += frameHeaderBytes + payload.length;
    this.#unwrittenBytes += frameHeaderBytes + payload.length;
  }

  /** Goes out at the next boundary between frames. */
  addControl(frame: Buffer): void {
    if (this.peer !== null) this.#control.push(frame);
  }

  /** As {@link addControl}, unless what is going out anyway shows that this side is alive. */
  keepAlive(frame: Buffer): void {
    if (this.#offset > 0 || this.#control.length > 0) return;
    this.addControl(frame);
    this.write(0);
  }

  /**
   * Gives the connection up to `limitBytes` (whole, or Infinity) of the frames, and the control frames due.
   *
   * @returns the bytes of frames written
   */
  write(limitBytes: number): number {
    if (this.peer === null) return 0;
    const { tls } = this.peer;
    let written = 0;
    tls.cork();
    while (true) {
      if (this.#offset === 0 && this.#control.length > 0) {
        for (const frame of this.#control) tls.write(frame);
        this.#control = [];
      }
      const frame = this.#kept[this.#next - this.#first];
      if (frame === undefined || written >= limitBytes) break;
      const { header, payload } = frame;
      const part = this.#offset < header.length ? header : payload;
      const start = part === header ? this.#offset : this.#offset - header.length;
      const slice = part.subarray(start, start + limitBytes - written);
      if (slice.length > 0) tls.write(slice);
      written += slice.length;
      this.#offset += slice.length;
      if (this.#offset < header.length + payload.length) continue;
      this.#next++;
      this.#offset = 0;
    }
    tls.uncork();
    this.#unwrittenBytes -= written;
    return written;
  }

  /** The other relay has received so many frames: they are not kept any longer. */
  forget(received: number): void {
    if (!Number.isSafeInteger(received) || received < this.#first || received > this.#next)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay received what was not sent');
    const count = received - this.#first;
    if (count === 0) return;
    for (let at = 0; at < count; at++) this.#keptBytes -= frameHeaderBytes + this.#kept[at]!.payload.length;
    this.#kept = this.#kept.slice(count);
    this.#first = received;
  }

  /** Goes on over another connection, from the first frame that the other relay has not received. */
  resume(peer: LinkConnection, received: number): void {
    this.forget(received);
    this.#next = received;
    this.#offset = 0;
    this.#unwrittenBytes = this.#keptBytes;
    this.arrivedBytes = 0;
    this.peer = peer;
  }

  /** The connection is gone, and with it what was not kept. */
  interrupt(): void {
    this.peer = null;
    this.#control = [];
  }
}
