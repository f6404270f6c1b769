/** Keeps the last bytes of what passes by, in bounded memory. */
export class LastBytes {
  readonly #limitBytes: number;
  readonly #chunks: Buffer[] = [];
  #keptBytes = 0;
  /** Of all that passed. */
  totalBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  push(bytes: Buffer): void {
    this.#chunks.push(Buffer.from(bytes));
    this.#keptBytes += bytes.length;
    this.totalBytes += bytes.length;
    while (this.#keptBytes - this.#chunks[0]!.length >= this.#limitBytes) {
      this.#keptBytes -= this.#chunks.shift()!.length;
    }
  }

  /** At least the last `limitBytes`, if there were so many. */
  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
