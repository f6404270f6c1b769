/** The time in which a link that was interrupted looks for its peer. */
import { RelayError } from '../errors.js';
import type { EndureOptions } from './durableLinkOptions.js';
import { type Interruptible, Readmission, type Reconnection, Redialling } from './reconnect.js';

export class Search {
  readonly #reconnection: Reconnection;
  readonly #limitMs: number;
  readonly #link: Interruptible;
  #beganAtMs = 0;
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
    this.#deadline = setTimeout(() => {
      const message = `the other relay could not be reached again for ${Math.round(this.#limitMs / 1000)} s`;
      this.#link.fail(new RelayError('VMMIG_LINK_LOST', message, cause));
    }, this.#limitMs);
    this.#reconnection.seek();
  }

  /** @returns how long it took, in milliseconds */
  found(): number {
    clearTimeout(this.#deadline);
    return performance.now() - this.#beganAtMs;
  }

  stop(): void {
    clearTimeout(this.#deadline);
    this.#reconnection.stop();
  }
}
