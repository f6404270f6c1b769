/**
 * Pages of huge host pages that are not complete yet. QEMU places a host page in one go, so it gets none of its pages
 * before all are here. What is held is bounded: beyond that the host page that was begun first is forgotten.
 */
import { pageBytes } from '../../digest.js';
import type { BlockPages } from './blockPages.js';
import { pageKey } from './faults.js';
import { PageBitmap } from './pageBitmap.js';

export interface HeldHostPage {
  readonly pages: BlockPages;
  /** Its first page. */
  readonly page: number;
  /** All its pages, where they are here. */
  readonly bytes: Buffer;
  readonly held: PageBitmap;
}

export class HostPageCollector {
  readonly #limitBytes: number;
  readonly #held = new Map<number, HeldHostPage>();
  #heldBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get(pages: BlockPages, page: number): HeldHostPage | undefined {
    return this.#held.get(pageKey(pages.block.index, page));
  }

  /** Keeps some pages of the host page that begins with `hostPage`. */
  add(pages: BlockPages, hostPage: number, page: number, count: number, bytes: Buffer, start: number): void {
    const held = this.get(pages, hostPage) ?? this.#begin(pages, hostPage);
    bytes.copy(held.bytes, (page - hostPage) * pageBytes, start, start + count * pageBytes);
    held.held.set(page - hostPage, count);
    pages.zero.clear(page, count);
  }

  /** These pages have turned out to be zero; false when nothing of the host page is held. */
  zero(pages: BlockPages, hostPage: number, page: number, count: number): boolean {
    const held = this.get(pages, hostPage);
    if (held === undefined) return false;
    const from = Math.max(page, hostPage);
    const to = Math.min(page + count, hostPage + pages.pagesPerHostPage);
    held.held.clear(from - hostPage, to - from);
    return true;
  }

  /** All pages of it are here, or known to be zero. */
  isComplete(pages: BlockPages, hostPage: number): boolean {
    const count = pages.pagesPerHostPage;
    return (this.get(pages, hostPage)?.held.count ?? 0) + pages.zero.countIn(hostPage, count) === count;
  }

  /** Forgets one. */
  remove(pages: BlockPages, hostPage: number): void {
    const key = pageKey(pages.block.index, hostPage);
    const held = this.#held.get(key);
    if (held === undefined) return;
    this.#held.delete(key);
    this.#heldBytes -= held.bytes.length;
  }

  /** Forgets the one begun first that is not needed at once, and gives it, when more is held than may be. */
  evict(isNeeded: (held: HeldHostPage) => boolean): HeldHostPage | null {
    if (this.#heldBytes <= this.#limitBytes) return null;
    for (const held of this.#held.values()) {
      if (isNeeded(held)) continue;
      this.remove(held.pages, held.page);
      return held;
    }
    return null;
  }

  #begin(pages: BlockPages, page: number): HeldHostPage {
    const bytes = Buffer.allocUnsafeSlow(pages.pagesPerHostPage * pageBytes);
    const begun = { pages, page, bytes, held: new PageBitmap(pages.pagesPerHostPage) };
    this.#held.set(pageKey(pages.block.index, page), begun);
    this.#heldBytes += bytes.length;
    return begun;
  }
}
