/**
 * One page that QEMU is not given before the switch, so that there is something to drop then. QEMU must be told to drop
 * a page or more, or it never leaves the state in which it loads pages without asking; and what it dropped has to be
 * placed again, which needs the page's bytes.
 */
import { pageBytes } from '../../digest.js';
import type { BlockPages } from './blockPages.js';

export class HeldBackPage {
  #pages: BlockPages | null = null;
  #page = 0;
  readonly bytes = Buffer.alloc(pageBytes);

  /** Shows it pages that are about to be placed; gives the one that is not to be, or -1. */
  offer(pages: BlockPages, page: number, count: number, bytes: Buffer, start: number): number {
    if (this.#pages === null && pages.pagesPerHostPage === 1) {
      this.#pages = pages;
      this.#page = page;
    }
    if (!this.#isWithin(pages, page, count)) return -1;
    const at = start + (this.#page - page) * pageBytes;
    bytes.copy(this.bytes, 0, at, at + pageBytes);
    return this.#page;
  }

  /** The version here is not the latest any more. */
  forget(pages: BlockPages, page: number, count: number): void {
    if (this.#isWithin(pages, page, count)) this.#pages = null;
  }

  /** What was held back, and counts as missing from now on. */
  release(): { readonly pages: BlockPages; readonly page: number } | null {
    const pages = this.#pages;
    this.#pages = null;
    pages?.setMissing(this.#page, 1);
    return pages === null ? null : { pages, page: this.#page };
  }

  #isWithin(pages: BlockPages, page: number, count: number): boolean {
    return this.#pages === pages && this.#page >= page && this.#page < page + count;
  }
}
