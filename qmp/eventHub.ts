/** Hands each QMP event to every listener of a connection, and tells them all why events stopped. */
import { QmpInterruptedError } from './errors.js';
import type { QmpEvent } from './types/events.js';

/** Event names, or a predicate on the event. Without a filter, all events. */
export type QmpEventFilter<E extends string = string> = E | readonly E[] | ((event: QmpEvent) => boolean);

/** Takes events until it is ended. */
export interface QmpEventListener {
  offer(event: QmpEvent): void;
  /** No event will come any more; `error` says why, unless the client was closed by its owner. */
  end(error: Error | undefined): void;
}

export function matcher(filter: QmpEventFilter | undefined): (event: QmpEvent) => boolean {
  if (filter === undefined) return () => true;
  if (typeof filter === 'function') return filter;
  const names = new Set(typeof filter === 'string' ? [filter] : filter);
  return ({ event }) => names.has(event);
}

/** All listeners of one connection. */
export class EventHub {
  readonly #listeners = new Set<QmpEventListener>();
  #ended: { error: Error | undefined } | undefined;

  /** Adds a listener; one that comes after the end is ended at once. */
  add(listener: QmpEventListener): void {
    if (this.#ended === undefined) this.#listeners.add(listener);
    else listener.end(this.#ended.error);
  }

  delete(listener: QmpEventListener): void {
    this.#listeners.delete(listener);
  }

  publish(event: QmpEvent): void {
    for (const listener of this.#listeners) listener.offer(event);
  }

  /** Ends every listener; those that wait for something particular learn `cause` by their own error. */
  end(cause: Error | undefined): void {
    const error =
      cause === undefined || cause instanceof QmpInterruptedError
        ? cause
        : new QmpInterruptedError(cause.message, 'disconnect', { cause });
    this.#ended = { error };
    for (const listener of [...this.#listeners]) listener.end(error);
    this.#listeners.clear();
  }
}
