/**
 * Bytes on their way out: written in batches, handed over whole, and their memory taken back when the reader is done.
 */

/** A batch smaller than this is copied when it is taken, and its memory written on: large memory for few bytes is a waste. */
const COPY_BELOW_BYTES = 4096;
/** As many batches as are usually on their way to a reader that is a little behind. */
const MAX_SPARE = 32;

export class OutputBuffer {
  readonly #batchBytes: number;
  #bytes: Buffer | null = null;
  readonly #spare: Buffer[] = [];
  /** Memory of batches that were taken, so that no other is ever recycled, and none twice. */
  readonly #taken = new WeakSet<ArrayBufferLike>();
  #length = 0;

  constructor(batchBytes: number) {
    this.#batchBytes = batchBytes;
  }

  get length(): number {
    return this.#length;
  }

  /** The memory in which `reserve` gave room. */
  get bytes(): Buffer {
    return this.#bytes!;
  }

  /** Makes room for so many bytes more; returns where in `bytes` they belong. */
  reserve(lengthBytes: number): number {
    const start = this.#length;
    const length = start + lengthBytes;
    if (this.#bytes === null || length > this.#bytes.length) this.#grow(length);
    this.#length = length;
    return start;
  }

  #grow(length: number): void {
    const old = this.#bytes;
    if (length <= this.#batchBytes) this.#bytes = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#batchBytes);
    else this.#bytes = Buffer.allocUnsafeSlow(Math.max(length, 2 * (old?.length ?? 0)));
    old?.copy(this.#bytes, 0, 0, this.#length);
  }

  /** What has been written so far; it is the caller's now. */
  take(): Buffer {
    const length = this.#length;
    this.#length = 0;
    if (this.#bytes === null || length === 0) return Buffer.alloc(0);
    if (length < COPY_BELOW_BYTES) return Buffer.from(this.#bytes.subarray(0, length));
    const taken = this.#bytes.subarray(0, length);
    if (this.#bytes.length === this.#batchBytes) this.#taken.add(taken.buffer);
    this.#bytes = null;
    return taken;
  }

  /** Gives back what `take` gave, once nobody reads it any more. */
  recycle(taken: Buffer): void {
    if (!this.#taken.delete(taken.buffer) || this.#spare.length === MAX_SPARE) return;
    this.#spare.push(Buffer.from(taken.buffer));
  }
}
