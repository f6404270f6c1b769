/** The time in which a link that was interrupted looks for its peer. */
import { RelayError } from '../errors.js';
import type { EndureOptions } from './durableLinkOptions.js';
import { type Interruptible, Readmission, type Reconnection, Redialling } from './reconnect.js';

export class Search {
  readonly #reconnection: Reconnection;
  #limitMs: number;
  readonly #link: Interruptible;
  #beganAtMs = 0;
  /** Of the interruption; null while there is none. */
  #cause: RelayError | null = null;
  #deadline: NodeJS.Timeout | undefined;

  constructor({ by, reconnectTimeoutMs }: EndureOptions, link: Interruptible) {
    this.#reconnection =
      'dial' in by ? new Redialling(by.dial, by.credentials, link) : new Readmission(by.accept.door, link);
    this.#limitMs = reconnectTimeoutMs;
    this.#link = link;
  }

  /** @param cause - of the interruption */
  begin(cause: RelayError): void {
    this.#beganAtMs = performance.now();
    this.#cause = cause;
    this.#limit();
    this.#reconnection.seek();
  }

  /** Also of a search that is under way. */
  set limitMs(limitMs: number) {
    this.#limitMs = limitMs;
    if (this.#cause !== null) this.#limit();
  }

  /** @returns how long it took, in milliseconds */
  found(): number {
    clearTimeout(this.#deadline);
    this.#cause = null;
    return performance.now() - this.#beganAtMs;
  }

  stop(): void {
    clearTimeout(this.#deadline);
    this.#cause = null;
    this.#reconnection.stop();
  }

  #limit(): void {
    clearTimeout(this.#deadline);
    const leftMs = this.#limitMs - (performance.now() - this.#beganAtMs);
    this.#deadline = setTimeout(
      () => {
        const message = `the other relay could not be reached again for ${Math.round(this.#limitMs / 1000)} s`;
        this.#link.fail(new RelayError('VMMIG_LINK_LOST', message, this.#cause));
      },
      Math.max(0, leftMs),
    );
  }
}
