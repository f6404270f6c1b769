/** Puts ordered frames back into their order: each connection keeps its own, but they are spread over several. */
import { RelayError } from '../errors.js';
import type { Frame } from './frames.js';

/** More than a source that keeps to its window can have under way. */
const maxReorderedBytes = 96 * 1024 * 1024;
/** What keeping an early frame costs besides its payload, for frames that have next to none. */
const earlyFrameBytes = 64 * 1024;

export class OrderedInbox {
  readonly #handle: (frame: Frame) => void;
  readonly #early = new Map<number, Frame>();
  #earlyBytes = 0;
  #next = 0;

  constructor(handle: (frame: Frame) => void) {
    this.#handle = handle;
  }

  /** Hands over the frame, and those that were waiting for it; or keeps it until its turn comes. */
  add(frame: Frame): void {
    if (frame.sequence < this.#next || this.#early.has(frame.sequence))
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the other relay sent frame ${frame.sequence} twice`);
    this.#early.set(frame.sequence, frame);
    this.#earlyBytes += frame.payload.length + earlyFrameBytes;
    if (this.#earlyBytes > maxReorderedBytes)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay ignores the window');
    for (let next = this.#early.get(this.#next); next !== undefined; next = this.#early.get(this.#next)) {
      this.#early.delete(this.#next++);
      this.#earlyBytes -= next.payload.length + earlyFrameBytes;
      this.#handle(next);
    }
  }
}
