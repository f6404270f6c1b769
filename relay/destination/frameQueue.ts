/** Ordered frames that wait to be handled, one at a time: the source keeps to its window, so there are never many. */
import { RelayError } from '../errors.js';
import type { Frame } from '../link/frames.js';

/** More than a source that keeps to its window can have under way. */
const maxQueuedBytes = 96 * 1024 * 1024;
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
}

export class FrameQueue {
  readonly #frames: Frame[] = [];
  readonly #handlers: FrameHandlers;
  #queuedBytes = 0;
  #isWorking = false;

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
    if (!this.#isWorking) void this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      for (let frame = this.#frames.shift(); frame && !this.#handlers.hasEnded(); frame = this.#frames.shift()) {
        this.#queuedBytes -= frame.payload.length + frameBytes;
        await this.#handlers.handle(frame);
      }
    } catch (thrown) {
      const isOurs = thrown instanceof RelayError;
      this.#handlers.failed(isOurs ? thrown : new RelayError('VMMIG_LINK_PROTOCOL', String(thrown), thrown));
    }
    this.#isWorking = false;
  }
}
