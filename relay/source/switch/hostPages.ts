/**
 * Huge pages of the destination's host. QEMU takes such a page as a whole: until it has all of one that was begun, the
 * rest takes memory there; and until the switch nothing of it is acknowledged, so that it takes memory here.
 */
import { RelayError } from '../../errors.js';
import { type BatchRecord, recordKind } from '../../link/batch.js';
import type { GuestPages } from '../guestPages.js';

export class HostPages {
  /** For each block, how many pages a host page has. */
  #sizes: readonly number[] | null = null;

  /** The destination has told of them, which it does where it has any. */
  get areHuge(): boolean {
    return this.#sizes !== null;
  }

  /** @param sizes - for each block, how many pages a host page has */
  learn(sizes: readonly number[]): void {
    this.#sizes = sizes;
  }

  /** What was begun of them goes on before the rest. */
  preferRest(records: readonly BatchRecord[], store: GuestPages): void {
    if (this.#sizes === null) return;
    for (const { kind, block, page, count } of records) {
      const size = this.#sizes[block]!;
      if (size === 1 || kind === recordKind.fill) continue;
      const from = page - (page % size);
      store.moveToFront(block, from, Math.ceil((page + count - from) / size) * size);
    }
  }

  /** Before the switch. @returns why the store will not take more however long it waits; null when it will */
  outOfRoom(store: GuestPages): RelayError | null {
    if (this.#sizes === null || !store.isFull) return null;
    const { fill, bytes, reference } = store.unsent;
    if (fill + bytes + reference > 0) return null;
    const message =
      'the guest lies in huge pages, and all that is in use of them has to be kept until it has moved: give the page store more memory, or let it spill';
    return new RelayError('VMMIG_RELAY_STREAM', message);
  }
}
