/**
 * JSON-RPC framing over a pair of byte streams: one JSON value a line, UTF-8, ended by \n. The first line in either
 * direction is the handshake (`handshake.ts`), every later one a JSON-RPC 2.0 message. Lines have a bounded length.
 * Nothing may write to these streams besides: what is not JSON ends the connection.
 */
import type { Readable, Writable } from 'node:stream';
import {
  AbstractMessageReader,
  AbstractMessageWriter,
  type DataCallback,
  Disposable,
  type Message,
  type MessageReader,
  type MessageWriter,
} from 'vscode-jsonrpc/node';

/** Control messages are kilobytes, a report at most some megabytes; what is longer than this is not ours. */
const MAX_LINE_BYTES = 64 * 1024 * 1024;
/** A handshake is under 100 bytes: more without an end of line is something else talking. */
const MAX_FIRST_LINE_BYTES = 4096;
const NEWLINE = 0x0a;

export class JsonLineReader extends AbstractMessageReader implements MessageReader {
  readonly #readable: Readable;
  /** The line under way. */
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #firstLine: string | undefined;
  #onFirstLine: ((line: string) => void) | undefined;
  #onMessage: DataCallback | undefined;
  #ended = false;

  constructor(readable: Readable) {
    super();
    this.#readable = readable;
    readable.on('data', this.#onData);
    // A pipe ends; a socket or channel that was cut only closes, and one whose other end was killed says so. Why, others know.
    readable.on('error', this.#onEnd);
    readable.on('end', this.#onEnd);
    readable.on('close', this.#onEnd);
  }

  /** Calls back once with the first line, or with all there is when no newline comes in the first 4 KiB. */
  onFirstLine(callback: (line: string) => void): void {
    this.#onFirstLine = callback;
    if (this.#firstLine !== undefined) callback(this.#firstLine);
  }

  /** What arrived of a first line that has not ended. */
  get unfinishedLine(): string {
    return Buffer.concat(this.#partial).toString('utf8');
  }

  get ended(): boolean {
    return this.#ended;
  }

  listen(callback: DataCallback): Disposable {
    this.#onMessage = callback;
    this.#readable.resume();
    return Disposable.create(() => this.dispose());
  }

  override dispose(): void {
    this.#onMessage = undefined;
    this.#readable.off('data', this.#onData);
    super.dispose();
  }

  readonly #onData = (chunk: Buffer): void => {
    let start = 0;
    while (start < chunk.length) {
      if (this.#firstLine !== undefined && !this.#onMessage) {
        // The handshake is still being judged; what follows it waits in the stream.
        this.#readable.pause();
        this.#readable.unshift(chunk.subarray(start));
        return;
      }
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline < 0 ? chunk.length : newline;
      this.#partial.push(chunk.subarray(start, end));
      this.#partialBytes += end - start;
      if (!this.#withinLimit()) return;
      if (newline < 0) return;
      start = newline + 1;
      this.#onLine();
    }
  };

  #withinLimit(): boolean {
    if (this.#firstLine === undefined) {
      if (this.#partialBytes <= MAX_FIRST_LINE_BYTES) return true;
      this.#onLine();
    } else if (this.#partialBytes <= MAX_LINE_BYTES) {
      return true;
    } else {
      this.fireError(new Error(`a message is longer than ${MAX_LINE_BYTES} bytes`));
    }
    this.#readable.off('data', this.#onData);
    return false;
  }

  #onLine(): void {
    const line = Buffer.concat(this.#partial, this.#partialBytes).toString('utf8');
    this.#partial = [];
    this.#partialBytes = 0;
    if (this.#firstLine === undefined) {
      this.#firstLine = line;
      this.#onFirstLine?.(line);
      return;
    }
    const message = parseObject(line);
    if (message) this.#onMessage?.(message as Message);
    else this.fireError(new Error(`not a message: ${JSON.stringify(line.slice(0, 200))}`));
  }

  readonly #onEnd = (): void => {
    if (this.#ended) return;
    this.#ended = true;
    this.fireClose();
  };
}

/** Undefined when the line is not a JSON object. */
export function parseObject(line: string): object | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export class JsonLineWriter extends AbstractMessageWriter implements MessageWriter {
  readonly #writable: Writable;

  constructor(writable: Writable) {
    super();
    this.#writable = writable;
    writable.on('error', (error) => this.fireError(error));
    writable.on('close', () => this.fireClose());
  }

  get writable(): boolean {
    return this.#writable.writable;
  }

  /** Resolves when the line was handed to the operating system: a slow reader slows the writer down. */
  write(message: object): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#writable.write(`${JSON.stringify(message)}\n`, (error) => (error ? reject(error) : resolve()));
    });
  }

  end(): void {
    this.#writable.end();
  }
}
