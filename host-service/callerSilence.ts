/** How long a caller, who asks every 3 s, may ask for nothing before a service takes it for gone. */

const usualMs = 20_000;

export class CallerPatience {
  #limitMs = usualMs;

  get limitMs(): number {
    return this.#limitMs;
  }

  /** While the relays look for each other the caller may be cut off as well; TCP takes as long again to come back. */
  extend(reconnectTimeoutMs: number): void {
    this.#limitMs = usualMs + 2 * reconnectTimeoutMs;
  }

  /** The relay has given up, and nothing is waited for any more; or a guest that stands still must not be kept. */
  end(): void {
    this.#limitMs = usualMs;
  }
}
