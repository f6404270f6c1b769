/**
 * The pages that other pages point to: eight bytes that are an address in the upper half of the address space, where
 * operating systems keep themselves, and where something is mapped, count as a pointer, whatever they are.
 */
import { pageBytes } from './gpaStretches.js';
import type { LookedAt, PageTables } from './pageTables.js';

/** Of the bits 32 to 63 of an address in the upper half: with 4 levels of tables, and with 5. */
const upperHalf = { 4: { from: 0xffff_8000, mask: 0xffff }, 5: { from: 0xff00_0000, mask: 0x1ff_ffff } } as const;

export class Pointers {
  readonly #memory: LookedAt;
  /** By which pointers are followed. */
  readonly tables: PageTables;
  readonly #upper: (typeof upperHalf)[4 | 5];
  readonly #page = Buffer.allocUnsafeSlow(pageBytes);
  readonly #words = new Uint32Array(this.#page.buffer);

  constructor(memory: LookedAt, tables: PageTables, levels: number) {
    this.#memory = memory;
    this.tables = tables;
    this.#upper = levels === 5 ? upperHalf[5] : upperHalf[4];
  }

  /**
   * @param pages - guest physical addresses
   * @param known - pages that are left out; those that are found are added
   * @returns guest physical addresses of pages, in the order in which they are pointed to; at most so many
   */
  of(pages: Iterable<number>, known: Set<number>, limit: number): number[] {
    const found: number[] = [];
    const seen = new Set<number>();
    for (const gpa of pages) {
      if (found.length >= limit) break;
      if (!this.#memory.read(gpa, this.#page)) continue;
      for (let at = 1; at < this.#words.length; at += 2) {
        const high = this.#words[at]!;
        if (high < this.#upper.from) continue;
        const page = (high & this.#upper.mask) * 2 ** 20 + (this.#words[at - 1]! >>> 12);
        if (seen.has(page)) continue;
        seen.add(page);
        const target = this.tables.locate(page);
        if (target === null || known.has(target)) continue;
        known.add(target);
        found.push(target);
      }
    }
    return found;
  }
}
