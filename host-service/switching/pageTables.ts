/**
 * The page tables of one of a running guest's processors, read from outside. x86-64: Intel SDM volume 3, 4.5.
 */
import type { PhysicalMemory, RamStretch } from '../../hypervisor/index.js';

const pageBytes = 4096;
const entryBytes = 8;
const entries = 512;
const present = 1n;
const accessed = 1n << 5n;
const large = 1n << 7n;
const addressMask = 0xf_ffff_ffff_f000n;
/** A table of the second level covers so much, in pieces of 2 MiB. */
const directoryBytes = 2 ** 30;
const pieceBytes = 2 ** 21;

/** What is looked at of the guest's memory. */
export type LookedAt = Pick<PhysicalMemory, 'read' | 'stretch'>;

interface TablePart {
  readonly gpa: number;
  readonly level: number;
  /** Entries. */
  readonly from: number;
  readonly end: number;
}

export class PageTables {
  readonly #memory: LookedAt;
  readonly #root: number;
  readonly #levels: number;
  readonly #touched = new Set<number>();
  readonly #entry = Buffer.alloc(entryBytes);

  /** @param root - guest physical address of the top table */
  constructor(memory: LookedAt, root: number, levels: number) {
    this.#memory = memory;
    this.#root = root;
    this.#levels = levels;
  }

  /** The pages that `walk` and `word` have looked at and led to. */
  touched(): RamStretch[] {
    return [...this.#touched].flatMap((gpa) => this.#memory.stretch(gpa, pageBytes));
  }

  /** Goes from table to table. @returns the guest physical address, or null where there is nothing */
  walk(address: bigint): number | null {
    const found = this.#descend(address, 1);
    if (found !== null) this.#touch(found);
    return found;
  }

  /** Eight bytes at a guest physical address. */
  word(gpa: number): bigint | null {
    if (!this.#memory.read(gpa, this.#entry)) return null;
    this.#touch(gpa);
    return this.#entry.readBigUInt64LE();
  }

  /** The tables for the upper half of the address space, where operating systems keep themselves; at most so many. */
  upperTables(limit: number): RamStretch[] {
    const root = { gpa: this.#root, level: this.#levels };
    return this.#reached({ ...root, from: entries / 2, end: entries }, present, 2, limit, [this.#root]);
  }

  /** The tables for the lower half, where the process is that ran last, and those of its pages that it has used; at most so many. */
  usedByProcess(limit: number): RamStretch[] {
    const root = { gpa: this.#root, level: this.#levels };
    return this.#reached({ ...root, from: 0, end: entries / 2 }, present | accessed, 1, limit, []);
  }

  /** What is mapped next to an address without a gap of 2 MiB, so far in both directions. */
  around(address: bigint, distanceBytes: number): RamStretch[] {
    const directory = this.#descend(address, 3);
    if (directory === null) return [];
    const table = this.#table(directory);
    const at = Math.floor((Number(BigInt.asUintN(30, address)) % directoryBytes) / pieceBytes);
    const reach = Math.ceil(distanceBytes / pieceBytes);
    const isMapped = (index: number) => ((table[index] ?? 0n) & present) !== 0n;
    let first = at;
    let end = at;
    while (first > 0 && at - first < reach && isMapped(first - 1)) first--;
    while (end < entries && end - at < reach && isMapped(end)) end++;
    return Array.from(table.subarray(first, end)).flatMap((entry) => this.#piece(entry));
  }

  /**
   * What the entries of a part of a table lead to, table by table; nothing of what is mapped in one large piece.
   *
   * @param flags - that an entry must have
   * @param lowest - the level of the entries that are followed last
   */
  #reached(part: TablePart, flags: bigint, lowest: number, limit: number, found: number[]): RamStretch[] {
    for (const queue = [part]; queue.length > 0 && found.length < limit; ) {
      const { gpa, level, from, end } = queue.shift()!;
      for (const entry of this.#table(gpa).subarray(from, end)) {
        const isLarge = level > 1 && (entry & large) !== 0n;
        if ((entry & flags) !== flags || isLarge || found.length >= limit) continue;
        const next = Number(entry & addressMask);
        found.push(next);
        if (level > lowest) queue.push({ gpa: next, level: level - 1, from: 0, end: entries });
      }
    }
    return found.flatMap((gpa) => this.#memory.stretch(gpa, pageBytes));
  }

  #piece(entry: bigint): RamStretch[] {
    const base = Number(entry & addressMask);
    if ((entry & large) !== 0n) return this.#memory.stretch(base - (base % pieceBytes), pieceBytes);
    return Array.from(this.#table(base)).flatMap((page) =>
      (page & present) === 0n ? [] : this.#memory.stretch(Number(page & addressMask), pageBytes),
    );
  }

  /** @returns what the entry at `level` points to: with 1 the byte itself, with 3 the table of its gigabyte */
  #descend(address: bigint, level: number): number | null {
    let table = this.#root;
    for (let at = this.#levels; at >= level; at--) {
      const shift = BigInt(12 + 9 * (at - 1));
      const entry = this.word(table + Number((address >> shift) & 0x1ffn) * entryBytes);
      if (entry === null || (entry & present) === 0n) return null;
      const below = (1n << shift) - 1n;
      const isLarge = (at === 2 || at === 3) && (entry & large) !== 0n;
      if (isLarge && level > 1) return null;
      if (at === 1 || isLarge) return Number((entry & addressMask & ~below) | (address & below));
      table = Number(entry & addressMask);
    }
    return table;
  }

  #table(gpa: number): BigUint64Array {
    const bytes = Buffer.alloc(pageBytes);
    this.#memory.read(gpa, bytes);
    return new BigUint64Array(bytes.buffer, bytes.byteOffset, entries);
  }

  #touch(gpa: number): void {
    this.#touched.add(gpa - (gpa % pageBytes));
  }
}
