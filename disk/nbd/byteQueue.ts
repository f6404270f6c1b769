/**
 * Runs a parser over bytes that come in any pieces. The parser is a generator that yields how many bytes it needs next and
 * is resumed with just those, in a buffer that is overwritten afterwards. No I/O in here.
 */

/** Yields a length of at most `scratchBytes`, receives that many bytes. */
export type Parser<R> = Generator<number, R, Buffer>;

export class ByteQueue<R> {
  readonly #parser: Parser<R>;
  readonly #scratch: Buffer;
  #filled = 0;
  #needed = 0;
  #result: { readonly value: R } | undefined;

  /** @param scratchBytes - the most that the parser needs at once, and all the memory that is held */
  constructor(parser: Parser<R>, scratchBytes: number) {
    this.#parser = parser;
    this.#scratch = Buffer.alloc(scratchBytes);
    this.#resume(parser.next());
  }

  /** What the parser returned. */
  get result(): R | undefined {
    return this.#result?.value;
  }

  /**
   * Takes bytes in as far as the parser asks for them. @param from - where in `chunk` to begin
   * @returns how far into `chunk` it got: less than all only when the parser has ended or asked for nothing (yielded 0)
   */
  feed(chunk: Buffer, from = 0): number {
    let at = from;
    while (this.#result === undefined) {
      const count = Math.min(this.#needed - this.#filled, chunk.length - at);
      chunk.copy(this.#scratch, this.#filled, at, at + count);
      at += count;
      this.#filled += count;
      if (this.#filled < this.#needed) break;
      const bytes = this.#scratch.subarray(0, this.#filled);
      this.#filled = 0;
      this.#resume(this.#parser.next(bytes));
      if (this.#needed === 0) break;
    }
    return at;
  }

  #resume(step: IteratorResult<number, R>): void {
    if (step.done) this.#result = { value: step.value };
    else this.#needed = step.value;
    if (this.#needed > this.#scratch.length) throw new RangeError(`a parser asked for ${this.#needed} bytes`);
  }
}
