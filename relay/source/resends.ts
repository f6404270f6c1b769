/**
 * The runs that the destination's disk does not hold and that are to be sent as bytes after all. A map that lies makes
 * many of them at once: they are kept where they are kept anyway, and copied for the link when that has sent what it had.
 */
import type { DurableLink } from '../link/durableLink.js';
import { frameType } from '../link/frames.js';
import { encodeResend } from '../link/resend.js';
import type { RetainedRun } from './window.js';

interface WaitingRun {
  readonly sequence: number;
  /** The destination's words. */
  readonly request: Buffer;
  readonly run: RetainedRun;
}

/** Kept by the link at most, what is sent in order included, before resends have to wait. */
const maxKeptBytes = 56 * 1024 * 1024;

export class Resends {
  readonly #waiting: WaitingRun[] = [];

  add(waiting: WaitingRun, link: DurableLink): void {
    this.#waiting.push(waiting);
    this.send(link);
  }

  /** Sends as much as there is room for. To be called whenever the link keeps less. */
  send(link: DurableLink): void {
    while (this.#waiting.length > 0 && link.unreceivedBytes < maxKeptBytes) {
      const { sequence, request, run } = this.#waiting.shift()!;
      link.send(frameType.resend, sequence, encodeResend(request, run.bytes));
    }
  }
}
