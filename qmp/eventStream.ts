/** QMP events as an async iterator over a bounded queue that ends with the reason why events stopped. */
import { QmpOverflowError } from './errors.js';
import { matcher, type QmpEventFilter, type QmpEventListener } from './eventHub.js';
import type { QmpEvent } from './types/events.js';

interface Reader<E extends string> {
  resolve(result: IteratorResult<QmpEvent<E>, undefined>): void;
  reject(error: Error): void;
}

/** Gives the queued events first, then, once, the error that ended them. */
export class EventStream<E extends string>
  implements QmpEventListener, AsyncIterableIterator<QmpEvent<E>, undefined>, AsyncDisposable
{
  readonly #matches: (event: QmpEvent) => boolean;
  readonly #queueLimit: number;
  readonly #release: () => void;
  #queue: QmpEvent<E>[] = [];
  readonly #readers: Reader<E>[] = [];
  #ended = false;
  #error: Error | undefined;

  /** @param release called once, when the stream wants no more events */
  constructor(filter: QmpEventFilter<E> | undefined, queueLimit: number, release: (stream: EventStream<E>) => void) {
    this.#matches = matcher(filter);
    this.#queueLimit = queueLimit;
    this.#release = () => release(this);
  }

  offer(event: QmpEvent): void {
    if (this.#ended) return;
    try {
      if (!this.#matches(event)) return;
    } catch (error) {
      // The caller's filter failed: that is the caller's to see, not the connection's.
      this.end(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    const wanted = event as QmpEvent<E>;
    const reader = this.#readers.shift();
    if (reader !== undefined) reader.resolve({ done: false, value: wanted });
    else if (this.#queue.length < this.#queueLimit) this.#queue.push(wanted);
    else this.end(new QmpOverflowError(this.#queueLimit));
  }

  end(error: Error | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#release();
    // With readers waiting the queue is empty: the first of them gets the error, the others the plain end.
    const [first, ...others] = this.#readers.splice(0);
    if (first === undefined) this.#error = error;
    else if (error === undefined) first.resolve({ done: true, value: undefined });
    else first.reject(error);
    for (const reader of others) reader.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<QmpEvent<E>, undefined>> {
    const value = this.#queue.shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<QmpEvent<E>, undefined>> {
    this.end(undefined);
    this.#queue = [];
    this.#error = undefined;
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
