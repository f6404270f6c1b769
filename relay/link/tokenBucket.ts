/** Saved up while there is nothing to send. */
const burstMs = 10;
/** A timer of a busy machine that is this late costs no bandwidth. */
const latenessMs = 100;

/** A cap on the bytes sent each second. A short burst is allowed, and what a late timer held up is caught up with. */
export class TokenBucket {
  readonly #bytesPerMs: number;
  #available: number;
  #filledAtMs = performance.now();

  constructor(bitsPerSecond: number) {
    this.#bytesPerMs = bitsPerSecond / 8000;
    this.#available = this.#bytesPerMs * burstMs;
  }

  /** Takes without waiting; what is overdrawn is waited for by the next. */
  take(lengthBytes: number): void {
    this.#fill(burstMs);
    this.#available -= lengthBytes;
  }

  /** Resolves when `lengthBytes` may be sent. */
  async wait(lengthBytes: number): Promise<void> {
    this.take(lengthBytes);
    if (this.#available >= 0) return;
    const waitMs = -this.#available / this.#bytesPerMs;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    this.#fill(latenessMs);
  }

  #fill(limitMs: number): void {
    const nowMs = performance.now();
    const filled = this.#available + (nowMs - this.#filledAtMs) * this.#bytesPerMs;
    this.#available = Math.max(this.#available, Math.min(filled, limitMs * this.#bytesPerMs));
    this.#filledAtMs = nowMs;
  }
}
