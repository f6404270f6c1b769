/** Pages before the switch: QEMU loads them as in a pre-copy, any number of times, and asks for none. */
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import type { BlockPages } from './blockPages.js';
import { discardBytes } from './commands.js';
import { HeldBackPage } from './heldBackPage.js';
import type { Outbox } from './outbox.js';
import { SectionWriter } from './sectionWriter.js';

/** Long enough for a whole restored run, and short enough for the memory to be reused. */
const sectionBytes = 256 * 1024;
/** With less than this on its way a section is not kept waiting for more pages. */
const lowBacklogBytes = 512 * 1024;

export interface Switched {
  readonly commands: Buffer[];
  /** To be placed once QEMU asks. */
  readonly heldBack: { readonly pages: BlockPages; readonly page: number; readonly bytes: Buffer } | null;
}

export class PagesBefore {
  readonly #outbox: Outbox;
  readonly #writer: SectionWriter;
  readonly #heldBack = new HeldBackPage();

  constructor(outbox: Outbox, sectionId: number) {
    this.#outbox = outbox;
    this.#writer = new SectionWriter(sectionId, sectionBytes);
  }

  get pendingBytes(): number {
    return this.#writer.pendingBytes;
  }

  place(pages: BlockPages, page: number, count: number, bytes: Buffer, start: number): void {
    pages.setPlaced(page, count);
    pages.setWritten(page, count);
    const heldBack = this.#heldBack.offer(pages, page, count, bytes, start);
    for (let at = 0; at < count; at++) {
      if (page + at === heldBack) continue;
      this.#writer.page(pages.block, page + at, bytes, start + at * pageBytes);
      if (this.#writer.pendingBytes >= sectionBytes) this.flush();
    }
    this.progress();
  }

  zero(pages: BlockPages, page: number, count: number): void {
    this.#heldBack.forget(pages, page, count);
    pages.setZero(page, count);
  }

  remote(pages: BlockPages, page: number, count: number): void {
    this.#heldBack.forget(pages, page, count);
    pages.setMissing(page, count);
  }

  progress(): void {
    if (this.#outbox.backlogBytes < lowBacklogBytes) this.flush();
  }

  flush(): void {
    if (this.#writer.pendingBytes > 0) this.#outbox.push(this.#writer.take());
  }

  /** @returns the commands by which QEMU drops what is stale: one at least */
  switchOver(blocks: readonly BlockPages[]): Switched {
    const released = this.#heldBack.release();
    const commands = blocks.flatMap((pages) => discardBytes(pages, pages.stale()));
    if (commands.length === 0) commands.push(...dropZero(blocks));
    return { commands, heldBack: released === null ? null : { ...released, bytes: this.#heldBack.bytes } };
  }
}

/** Drops a host page of zeroes, which is zero as well when it is missing. */
function dropZero(blocks: readonly BlockPages[]): Buffer[] {
  for (const pages of blocks) {
    const zero = pages.zero.find(true, 0, pages.pages);
    if (zero === pages.pages) continue;
    return discardBytes(pages, [zero - (zero % pages.pagesPerHostPage), pages.pagesPerHostPage]);
  }
  // No machine is made like this: its firmware lies in small pages, and one of those would have been held back.
  throw new RelayError('VMMIG_RELAY_STREAM', 'all of the guest lies in huge pages, and all of it has been placed');
}
