/** QEMU's migration stream as a source relay takes it: from the socket through the decoder into a handler of its parts. */
import { StreamDecoder } from '../../stream/decoder.js';
import type { StreamHandler } from '../../stream/handler.js';
import type { RelayCounters } from '../counters.js';
import type { RelayError } from '../errors.js';
import { QemuInput } from './qemuInput.js';
import { ReturnPath } from './returnPath.js';
import { streamError } from './streamError.js';

/** What the first two throw is told to `failed`. */
export interface IncomingStreamHandlers {
  /** The handler has had some more of it. @returns whether more may come at once; else `resume` is called */
  decoded(): boolean;
  /** The handler has had all of it. */
  ended(): void;
  /** QEMU hung up, or what it sends cannot be relayed. */
  failed(error: RelayError): void;
}

export class IncomingStream implements AsyncDisposable {
  readonly #decoder: StreamDecoder;
  readonly #counters: RelayCounters;
  readonly #handlers: IncomingStreamHandlers;
  /** Where QEMU expects its destination to answer. */
  readonly #returnPath: ReturnPath | null;
  #input: QemuInput | null = null;
  #hasEnded = false;

  constructor(
    parts: StreamHandler,
    counters: RelayCounters,
    handlers: IncomingStreamHandlers,
    { answersQemu = false }: { readonly answersQemu?: boolean | undefined } = {},
  ) {
    this.#returnPath = answersQemu ? new ReturnPath(parts, (bytes) => this.#input?.answer(bytes)) : null;
    this.#decoder = new StreamDecoder(this.#returnPath ?? parts);
    this.#counters = counters;
    this.#handlers = handlers;
  }

  /**
   * Listens for QEMU, whose stream waits for `begin`.
   *
   * @param readBytes - at a time at most, where that matters
   * @throws RelayError VMMIG_RELAY_QEMU
   */
  async listen(socketPath: string, readBytes?: number): Promise<void> {
    const handlers = {
      bytes: (bytes: Buffer) => this.#decode(bytes),
      end: () => this.#end(),
      // One that has been told that all has arrived hangs up.
      lost: (error: RelayError) => {
        if (!this.#hasEnded) this.#handlers.failed(error);
      },
    };
    this.#input = await QemuInput.listen(socketPath, handlers, readBytes);
  }

  /** Lets QEMU write so much ahead of what is read, where that can be had. */
  widen(qemuPid: number, lengthBytes: number): void {
    this.#input?.widen(qemuPid, lengthBytes);
  }

  /** Lets QEMU's stream in. */
  begin(): void {
    this.#input?.begin();
  }

  /** Lets QEMU go on. */
  resume(): void {
    this.#input?.resume();
  }

  /** All of it has arrived. A QEMU that expects an answer completes its migration by that. */
  accept(): void {
    this.#returnPath?.shut();
  }

  /** Hangs up: before its stream has ended, QEMU's migration fails by that. */
  close(): void {
    this.#input?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input?.[Symbol.asyncDispose]();
  }

  #decode(bytes: Buffer): boolean {
    this.#counters.bytes.stream += bytes.length;
    try {
      this.#decoder.feed(bytes);
      if (this.#returnPath?.isComplete) this.#end();
      return this.#handlers.decoded();
    } catch (cause) {
      this.#handlers.failed(streamError(cause));
      return false;
    }
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    try {
      this.#decoder.end();
      this.#handlers.ended();
    } catch (cause) {
      this.#handlers.failed(streamError(cause));
    }
  }
}
