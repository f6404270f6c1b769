/**
 * Sends bulk frames over their connections, a slice at a time, as the window, the bandwidth cap and the connections allow.
 * Frames of several connections go out side by side, and each goes to the connection that is ready for one: TCP shares a
 * line out unevenly, and what waits for a slow connection keeps all that comes after it waiting.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { RelayError } from '../errors.js';
import type { Lane } from './lane.js';
import type { SendingWindow } from './sendingWindow.js';
import type { TokenBucket } from './tokenBucket.js';

const minSliceBytes = 8 * 1024;
const maxSliceBytes = 128 * 1024;
/** Less room than this is not worth a TLS record. */
const minRoomBytes = 4096;
/** Small frames go to a connection together. */
const giveBytes = 32 * 1024;
/** What may wait here before the caller is asked to wait: enough that the link does not run dry meanwhile. */
const openBytes = 128 * 1024;
/** Of frames that the other side is not known to have: one that is late keeps all that come after it waiting there. */
const openFrames = 1024;
/** What the window or a bandwidth cap still holds up when the link is closed has so long to go out. */
const flushLimitMs = 5000;
const flushPollMs = 5;

export interface BulkHandlers {
  /** Something is under way. */
  wrote(): void;
  /** `isOpen` again. */
  drained(): void;
}

interface QueuedFrame {
  readonly header: Buffer;
  readonly payload: Buffer;
}

export class BulkSender {
  readonly #lanes: readonly Lane[];
  readonly #window: SendingWindow;
  readonly #bucket: TokenBucket | null;
  readonly #handlers: BulkHandlers;
  /** For whichever connection is ready first. */
  readonly #queue: QueuedFrame[] = [];
  #queuedBytes = 0;
  /** Since the connections were made. */
  #receivedBytes = 0;
  #wasOpen = true;
  #turn = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(lanes: readonly Lane[], window: SendingWindow, bucket: TokenBucket | null, handlers: BulkHandlers) {
    this.#lanes = lanes;
    this.#window = window;
    this.#bucket = bucket;
    this.#handlers = handlers;
  }

  get unwrittenBytes(): number {
    return this.#lanes.reduce((sum, lane) => sum + lane.unwrittenBytes, this.#queuedBytes);
  }

  /** That no connection has been given. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Resolves when all has been written, cannot be any more, or takes too long. @param canBe - whether there is a connection */
  async flushed(canBe: () => boolean): Promise<void> {
    const deadlineMs = performance.now() + flushLimitMs;
    while (canBe() && this.unwrittenBytes > 0 && performance.now() < deadlineMs) await sleep(flushPollMs);
  }

  get isOpen(): boolean {
    const frames = this.#lanes.reduce((sum, { keptFrames }) => sum + keptFrames, this.#queue.length);
    const isShort = this.unwrittenBytes < openBytes && frames < openFrames;
    return isShort && this.#lanes.every(({ peer }) => peer !== null);
  }

  /** Queues a frame, and sends what may be sent. */
  add(header: Buffer, payload: Buffer): void {
    this.#queue.push({ header, payload });
    this.#queuedBytes += header.length + payload.length;
    this.pump();
  }

  pump(): void {
    for (let lane = this.#next(); lane !== null; lane = this.#next()) {
      const { roomBytes, windowBytes } = this.#window;
      if (roomBytes < Math.min(minRoomBytes, lane.unwrittenBytes)) break;
      const sliceBytes = Math.min(maxSliceBytes, Math.max(minSliceBytes, Math.floor(windowBytes / 64)));
      const lengthBytes = Math.min(roomBytes, lane.unwrittenBytes, sliceBytes, this.#bucket?.sliceBytes ?? Infinity);
      const waitMs = this.#bucket?.tryTake(lengthBytes) ?? 0;
      if (waitMs > 0) {
        this.#pumpIn(waitMs);
        break;
      }
      this.#window.sent(lane.write(lengthBytes));
      this.#handlers.wrote();
    }
    const { isOpen } = this;
    if (isOpen && !this.#wasOpen) setImmediate(() => this.isOpen && this.#handlers.drained());
    this.#wasOpen = isOpen;
  }

  /** The other side has received so much since the connections were made. */
  received(totalBytes: number, nowMs: number): void {
    const newBytes = totalBytes - this.#receivedBytes;
    if (newBytes < 0 || newBytes > this.#window.inFlightBytes)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay received what was not sent');
    this.#receivedBytes = totalBytes;
    if (newBytes > 0) this.#window.received(newBytes, nowMs);
  }

  /** The connections are new. */
  reset(): void {
    this.#window.reset();
    this.#receivedBytes = 0;
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #pumpIn(waitMs: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.pump();
    }, waitMs);
  }

  /** The connections that have something to send and can take it, in turn. */
  #next(): Lane | null {
    for (let tries = 0; tries < this.#lanes.length; tries++) {
      const lane = this.#lanes[this.#turn++ % this.#lanes.length]!;
      if (!lane.isWritable) continue;
      while (lane.unwrittenBytes < giveBytes && this.#queue.length > 0) this.#give(lane);
      if (lane.unwrittenBytes > 0) return lane;
    }
    return null;
  }

  #give(lane: Lane): void {
    const frame = this.#queue.shift()!;
    this.#queuedBytes -= frame.header.length + frame.payload.length;
    lane.add(frame.header, frame.payload);
  }
}
