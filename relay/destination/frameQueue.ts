/**
 * Ordered frames that wait to be handled, one at a time. There are never many: the source keeps to its window, or is made
 * to wait.
 */
import { RelayError } from '../errors.js';
import type { Frame } from '../link/frames.js';

/** More than a source that keeps to its window can have under way. */
const maxQueuedBytes = 96 * 1024 * 1024;
/** From so much on the source had better wait, until there is room again. */
const crowdedBytes = 24 * 1024 * 1024;
const roomyBytes = 12 * 1024 * 1024;
/** What keeping a frame costs besides its payload. */
const frameBytes = 256;
/** A payload below this is copied while it waits: it would keep all of the chunk in memory that it came in. */
const smallBytes = 8 * 1024;

export interface FrameHandlers {
  /** Resolves when the next frame may be handled. */
  handle(frame: Frame): Promise<void>;
  /** Called with what `handle` threw. */
  failed(error: RelayError): void;
  /** Nothing is handled any more. */
  hasEnded(): boolean;
  /** More waits than is good, or not any more. */
  crowded?(isCrowded: boolean): void;
}

export class FrameQueue {
  readonly #frames: Frame[] = [];
  readonly #handlers: FrameHandlers;
  #queuedBytes = 0;
  #isWorking = false;
  #isCrowded = false;

  constructor(handlers: FrameHandlers) {
    this.#handlers = handlers;
  }

  /** @throws RelayError when more waits than a source that keeps to its window sends */
  add(frame: Frame): void {
    const mustCopy = this.#isWorking && frame.payload.length < smallBytes;
    this.#frames.push(mustCopy ? { ...frame, payload: Buffer.from(frame.payload) } : frame);
    this.#queuedBytes += frame.payload.length + frameBytes;
    if (this.#queuedBytes > maxQueuedBytes)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay ignores the window');
    this.#tellCrowd();
    if (!this.#isWorking) void this.#work();
  }

  #tellCrowd(): void {
    const isCrowded = this.#queuedBytes > (this.#isCrowded ? roomyBytes : crowdedBytes);
    if (isCrowded === this.#isCrowded) return;
    this.#isCrowded = isCrowded;
    this.#handlers.crowded?.(isCrowded);
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      for (let frame = this.#frames.shift(); frame && !this.#handlers.hasEnded(); frame = this.#frames.shift()) {
        this.#queuedBytes -= frame.payload.length + frameBytes;
        this.#tellCrowd();
        await this.#handlers.handle(frame);
      }
    } catch (thrown) {
      const isOurs = thrown instanceof RelayError;
      this.#handlers.failed(isOurs ? thrown : new RelayError('VMMIG_LINK_PROTOCOL', String(thrown), thrown));
    }
    this.#isWorking = false;
  }
}
