/**
 * Bytes in, lines out: the outermost layer of QMP. I/O-free.
 *
 *     stream = *( line [CR] LF )        one JSON text per line, UTF-8, at most `maxLineBytes` long
 *
 * QEMU ends lines with CR LF. Every byte is looked at once and copied at most twice (amortised), however the input is
 * split: a long line that arrives in single bytes costs as much as one that arrives whole.
 */
import { QmpProtocolError } from './errors.js';

/** A reply longer than this is refused; `query-qmp-schema`, the longest known one, is 0.2 MB. */
export const DEFAULT_MAX_LINE_BYTES = 10 * 1024 * 1024;

/** What the buffer for a partial line starts at, and may keep between lines. */
const RETAINED_BYTES = 64 * 1024;

const LF = 0x0a;

export class LineFramer {
  readonly #maxLineBytes: number;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  /** The start of a line whose end has not arrived: the first `#partialBytes` of `#partial`. */
  #partial = Buffer.alloc(0);
  #partialBytes = 0;

  constructor(maxLineBytes = DEFAULT_MAX_LINE_BYTES) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** Bytes held of a line that is not complete. */
  get pendingBytes(): number {
    return this.#partialBytes;
  }

  /**
   * Takes the next bytes and gives the lines they complete, without line ends; blank lines are left out.
   *
   * @throws {QmpProtocolError} after the lines before it, for a line that is too long or not UTF-8. The framer is of no
   *   use after that.
   */
  *push(chunk: Uint8Array): Generator<string, void, undefined> {
    let start = 0;
    for (let end = chunk.indexOf(LF); end !== -1; end = chunk.indexOf(LF, start)) {
      const line = this.#complete(chunk.subarray(start, end));
      start = end + 1;
      if (line !== '') yield line;
    }
    this.#keep(chunk.subarray(start));
  }

  #complete(tail: Uint8Array): string {
    if (this.#partialBytes === 0) {
      this.#checkLength(tail.length);
      return this.#decode(tail);
    }
    this.#keep(tail);
    const line = this.#decode(this.#partial.subarray(0, this.#partialBytes));
    this.#partialBytes = 0;
    if (this.#partial.length > RETAINED_BYTES) this.#partial = Buffer.alloc(0);
    return line;
  }

  #keep(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const needed = this.#partialBytes + bytes.length;
    this.#checkLength(needed);
    if (needed > this.#partial.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#partial.length * 2, 4096));
      this.#partial.copy(grown, 0, 0, this.#partialBytes);
      this.#partial = grown;
    }
    this.#partial.set(bytes, this.#partialBytes);
    this.#partialBytes = needed;
  }

  #checkLength(lengthBytes: number): void {
    if (lengthBytes > this.#maxLineBytes) {
      throw new QmpProtocolError(`the peer sent a line of more than ${this.#maxLineBytes} bytes`);
    }
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes).trim();
    } catch (cause) {
      throw new QmpProtocolError('the peer sent a line that is not UTF-8', cause);
    }
  }
}
