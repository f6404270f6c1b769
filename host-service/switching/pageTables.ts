/**
 * The page tables of one of a running guest's processors, read from outside. x86-64: Intel SDM volume 3, 4.5.
 */
import type { PhysicalMemory } from '../../hypervisor/index.js';
import { type GpaStretch, pageAt, pageBytes } from './gpaStretches.js';

const entryBytes = 8;
const entries = 512;
/** Of an entry's lower half. */
const present = 1;
const writable = 2;
const accessed = 0x20;
const large = 0x80;
/** Of its upper half. */
const noExecute = 0x8000_0000;
/** A table of the second level covers so much, in pieces of 2 MiB. */
const directoryBytes = 2 ** 30;
const pieceBytes = 2 ** 21;
const pagesPerPiece = pieceBytes / pageBytes;

/** What is looked at of the guest's memory. */
export type LookedAt = Pick<PhysicalMemory, 'read'>;

interface TablePart {
  readonly gpa: number;
  readonly level: number;
  /** Entries. */
  readonly from: number;
  readonly end: number;
}

/** What is mapped, by what may be done with it. */
export interface Mapped {
  readonly data: GpaStretch[];
  readonly code: GpaStretch[];
  /** Only read. */
  readonly constants: GpaStretch[];
}

export class PageTables {
  readonly #memory: LookedAt;
  readonly #root: number;
  readonly #levels: number;
  #upper: Uint32Array | null = null;
  readonly #touched = new Set<number>();
  readonly #entry = Buffer.alloc(entryBytes);
  readonly #words = new Uint32Array(this.#entry.buffer, this.#entry.byteOffset, 2);
  /** By the number of a piece of 2 MiB: its table, its guest physical address, or nothing. */
  readonly #pieces = new Map<number, Uint32Array | number | null>();

  /** @param root - guest physical address of the top table */
  constructor(memory: LookedAt, root: number, levels: number) {
    this.#memory = memory;
    this.#root = root;
    this.#levels = levels;
  }

  /** The pages that `walk` and `word` have looked at and led to. */
  touched(): GpaStretch[] {
    return [...this.#touched].map(pageAt);
  }

  /** Goes from table to table. @returns the guest physical address, or null where there is nothing */
  walk(address: bigint): number | null {
    const found = this.#descend(address, 1, (gpa) => this.#touch(gpa));
    if (found === null) return null;
    this.#touch(found.gpa);
    return found.gpa;
  }

  /** Where a page is, by its number in the address space, sign bits left out; null where there is nothing. */
  locate(page: number): number | null {
    const number = Math.floor(page / pagesPerPiece);
    let piece = this.#pieces.get(number);
    if (piece === undefined) {
      const found = this.#descend(BigInt(number) * BigInt(pieceBytes), 2);
      piece = found?.isTable ? this.#table(found.gpa) : (found?.gpa ?? null);
      this.#pieces.set(number, piece);
    }
    const at = page % pagesPerPiece;
    if (piece === null || typeof piece === 'number') return piece === null ? null : piece + at * pageBytes;
    return (piece[2 * at]! & present) === 0 ? null : addressIn(piece, at);
  }

  /** Eight bytes at a guest physical address. */
  word(gpa: number): bigint | null {
    if (!this.#memory.read(gpa, this.#entry)) return null;
    this.#touch(gpa);
    return this.#entry.readBigUInt64LE();
  }

  /** The tables for the upper half of the address space, where operating systems keep themselves; at most so many. */
  upperTables(limit: number): GpaStretch[] {
    const root = { gpa: this.#root, level: this.#levels };
    return this.#reached({ ...root, from: entries / 2, end: entries }, present, 2, limit, [this.#root]);
  }

  /** The used tables for the lower half, where the process is that ran last; at most so many. */
  lowerTables(limit: number): GpaStretch[] {
    return this.#reached(this.#lowerHalf, present | accessed, 2, limit, []);
  }

  /** The same, and those of the process's pages that it has used; at most so many. */
  usedByProcess(limit: number): GpaStretch[] {
    return this.#reached(this.#lowerHalf, present | accessed, 1, limit, []);
  }

  /** Another address space. @param root - guest physical address of its top table */
  ofRoot(root: number): PageTables {
    return new PageTables(this.#memory, root, this.#levels);
  }

  /** Whether a page is the top table of another address space: it has the same upper half. */
  isRoot(gpa: number): boolean {
    this.#upper ??= this.#table(this.#root).subarray(entries);
    const last = this.#upper.length - 2;
    // Most pages differ in what is looked at first.
    if (gpa === this.#root || !this.#memory.read(gpa + pageBytes - entryBytes, this.#entry)) return false;
    if (this.#words[0] !== this.#upper[last] || this.#words[1] !== this.#upper[last + 1]) return false;
    return this.#table(gpa)
      .subarray(entries)
      .every((word, at) => word === this.#upper![at]);
  }

  /** What is mapped next to an address without a gap of 2 MiB, so far in both directions. */
  around(address: bigint, distanceBytes: number): Mapped {
    const mapped: Mapped = { data: [], code: [], constants: [] };
    const directory = this.#descend(address, 3);
    if (!directory?.isTable) return mapped;
    const table = this.#table(directory.gpa);
    const at = Math.floor((Number(BigInt.asUintN(30, address)) % directoryBytes) / pieceBytes);
    const reach = Math.ceil(distanceBytes / pieceBytes);
    const isMapped = (index: number) => ((table[2 * index] ?? 0) & present) !== 0;
    let first = at;
    let end = at;
    while (first > 0 && at - first < reach && isMapped(first - 1)) first--;
    while (end < entries && end - at < reach && isMapped(end)) end++;
    for (let piece = first; piece < end; piece++) this.#addPiece(table, piece, mapped);
    return mapped;
  }

  get #lowerHalf(): TablePart {
    return { gpa: this.#root, level: this.#levels, from: 0, end: entries / 2 };
  }

  /**
   * What the entries of a part of a table lead to, table by table; nothing of what is mapped in one large piece.
   *
   * @param flags - that an entry must have
   * @param lowest - the level of the entries that are followed last
   */
  #reached(part: TablePart, flags: number, lowest: number, limit: number, found: number[]): GpaStretch[] {
    for (const queue = [part]; queue.length > 0 && found.length < limit; ) {
      const { gpa, level, from, end } = queue.shift()!;
      const table = this.#table(gpa);
      for (let at = from; at < end && found.length < limit; at++) {
        const entry = table[2 * at]!;
        if ((entry & flags) !== flags || (level > 1 && (entry & large) !== 0)) continue;
        const next = addressIn(table, at);
        found.push(next);
        if (level > lowest) queue.push({ gpa: next, level: level - 1, from: 0, end: entries });
      }
    }
    return found.map(pageAt);
  }

  #addPiece(directory: Uint32Array, at: number, mapped: Mapped): void {
    const base = addressIn(directory, at);
    if ((directory[2 * at]! & large) !== 0) {
      add(directory, at, { gpa: base - (base % pieceBytes), lengthBytes: pieceBytes }, mapped);
      return;
    }
    const table = this.#table(base);
    for (let page = 0; page < entries; page++) add(table, page, pageAt(addressIn(table, page)), mapped);
  }

  /**
   * @param level - of the entry that is followed last
   * @param looked - at an entry
   * @returns with 1 the byte itself, with 3 the table of its gigabyte; a large page on the way is no table
   */
  #descend(address: bigint, level: number, looked?: (gpa: number) => void): { gpa: number; isTable: boolean } | null {
    let gpa = this.#root;
    for (let at = this.#levels; at >= level; at--) {
      const shift = BigInt(12 + 9 * (at - 1));
      const place = gpa + Number((address >> shift) & 0x1ffn) * entryBytes;
      if (!this.#memory.read(place, this.#entry)) return null;
      looked?.(place);
      if ((this.#words[0]! & present) === 0) return null;
      const next = addressIn(this.#words, 0);
      const isLarge = (at === 2 || at === 3) && (this.#words[0]! & large) !== 0;
      if (at === 1 || isLarge) {
        const sizeBytes = 2 ** Number(shift);
        return { gpa: next - (next % sizeBytes) + (Number(address & 0x3fff_ffffn) % sizeBytes), isTable: false };
      }
      gpa = next;
    }
    return { gpa, isTable: true };
  }

  #table(gpa: number): Uint32Array {
    const bytes = Buffer.alloc(pageBytes);
    this.#memory.read(gpa, bytes);
    return new Uint32Array(bytes.buffer, bytes.byteOffset, 2 * entries);
  }

  #touch(gpa: number): void {
    this.#touched.add(gpa - (gpa % pageBytes));
  }
}

function add(table: Uint32Array, at: number, stretch: GpaStretch, { data, code, constants }: Mapped): void {
  const [low, high] = [table[2 * at]!, table[2 * at + 1]!];
  if ((low & present) === 0) return;
  if ((high & noExecute) === 0) code.push(stretch);
  else if ((low & writable) === 0) constants.push(stretch);
  else data.push(stretch);
}

/** Of an entry of a table. */
function addressIn(table: Uint32Array, at: number): number {
  return (table[2 * at + 1]! & 0xf_ffff) * 2 ** 32 + (table[2 * at]! >>> 12) * pageBytes;
}
