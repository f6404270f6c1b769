/**
 * Keeps QEMU from stopping the guest before it is time, however little is left. QEMU decides that when it has been through
 * all of the guest's memory; so the end of its first pass is not read until then, and QEMU waits in front of a full socket.
 * What has come by then is sent meanwhile.
 *
 *   hold     from the end of the first pass on nothing is read
 *   keep up  it is read as the link takes it: QEMU goes through what the guest writes, again and again
 *   let go   everything is read at once
 */
import { pagesAhead } from '../pagesAhead.js';

/** Read at a time: what comes beyond the point at which to stop is read all the same. */
export const heldBackReadBytes = 32 * 1024;
/** Captured and not sent yet, while it is to keep up. */
const maxUnsentPages = 1024;

export class HoldBack {
  readonly #pagesAhead: number;
  #mode: 'hold' | 'keepUp' | 'letGo';

  /** @param isWanted - else everything is read at once */
  constructor(isWanted: boolean, ahead = pagesAhead(heldBackReadBytes)) {
    this.#mode = isWanted ? 'hold' : 'letGo';
    this.#pagesAhead = ahead;
  }

  /**
   * @param leftPages - of the first pass
   * @param unsentPages - of bytes
   */
  mayRead(leftPages: number, unsentPages: number): boolean {
    if (this.#mode === 'hold') return leftPages > this.#pagesAhead;
    return this.#mode === 'letGo' || unsentPages < maxUnsentPages;
  }

  /** Pages of the guest's that are held back. @param leftPages - of the first pass */
  heldBackPages(leftPages: number): number {
    return this.#mode === 'hold' && leftPages <= this.#pagesAhead ? leftPages : 0;
  }

  keepUp(): void {
    if (this.#mode === 'hold') this.#mode = 'keepUp';
  }

  letGo(): void {
    this.#mode = 'letGo';
  }
}
