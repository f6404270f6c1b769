/** Buffers of one size, used again: fresh memory costs a page fault for every page of it. */
export class BufferPool {
  readonly #free: Buffer[] = [];

  constructor(
    readonly lengthBytes: number,
    private readonly maxFree: number,
  ) {}

  acquire(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.lengthBytes);
  }

  /** Takes back a buffer that `acquire` gave; any other is left to the collector. */
  release(buffer: Buffer): void {
    if (buffer.length === this.lengthBytes && this.#free.length < this.maxFree) this.#free.push(buffer);
  }
}
