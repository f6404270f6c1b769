/** A cap on the bytes sent each second. A short burst is allowed, so that timers need not be exact. */
export class TokenBucket {
  readonly #bytesPerMs: number;
  readonly #burstBytes: number;
  #available: number;
  #filledAtMs = performance.now();

  constructor(bitsPerSecond: number) {
    this.#bytesPerMs = bitsPerSecond / 8000;
    this.#burstBytes = this.#bytesPerMs * 10;
    this.#available = this.#burstBytes;
  }

  /** Takes without waiting; what is overdrawn is waited for by the next. */
  take(lengthBytes: number): void {
    this.#fill();
    this.#available -= lengthBytes;
  }

  /** Resolves when `lengthBytes` may be sent. */
  async wait(lengthBytes: number): Promise<void> {
    this.take(lengthBytes);
    if (this.#available >= 0) return;
    const waitMs = -this.#available / this.#bytesPerMs;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }

  #fill(): void {
    const nowMs = performance.now();
    this.#available = Math.min(this.#burstBytes, this.#available + (nowMs - this.#filledAtMs) * this.#bytesPerMs);
    this.#filledAtMs = nowMs;
  }
}
