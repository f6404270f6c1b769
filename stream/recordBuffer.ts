const INITIAL_BYTES = 512;

/**
 * Gathers one record of which the length becomes known piece by piece. Memory follows the bytes that have arrived, not
 * the length that the stream claims. For everything but pages: those have their own, faster way.
 */
export class RecordBuffer {
  #bytes: Buffer;
  #length = 0;
  /** Bytes wanted before the record can be looked at again. */
  need: number;

  constructor(need: number) {
    this.#bytes = Buffer.allocUnsafe(INITIAL_BYTES);
    this.need = need;
  }

  get length(): number {
    return this.#length;
  }

  get complete(): boolean {
    return this.#length >= this.need;
  }

  /** Takes what is needed, or what there is, from `chunk[start ..]`; returns where it stopped. */
  fill(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.need - this.#length);
    const length = this.#length + end - start;
    if (length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.min(this.need, 2 * length));
      this.#bytes.copy(grown, 0, 0, this.#length);
      this.#bytes = grown;
    }
    chunk.copy(this.#bytes, this.#length, start, end);
    this.#length = length;
    return end;
  }

  /** The bytes so far; valid until the next call of any other method. */
  view(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** A copy of the first `lengthBytes`, for keeps. */
  copy(lengthBytes: number): Buffer {
    return Buffer.from(this.#bytes.subarray(0, lengthBytes));
  }

  /** The whole record, for keeps; without copying a large one. */
  detach(): Buffer {
    const bytes = this.view();
    this.#length = 0;
    if (this.#bytes.length === INITIAL_BYTES) return Buffer.from(bytes);
    this.#bytes = Buffer.allocUnsafe(INITIAL_BYTES);
    return bytes;
  }

  /** Starts the next record with what is left after `lengthBytes` of this one. */
  restart(need: number, lengthBytes = this.#length): void {
    this.#bytes.copyWithin(0, lengthBytes, this.#length);
    this.#length -= lengthBytes;
    this.need = need;
  }
}
