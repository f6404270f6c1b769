/** Which pages of each group the destination holds as a hint, and by what each of them is known again. */
import { crc32 } from 'node:zlib';
import { groupPages, pageBytes } from './pageGroups.js';

/** Pages next to each other, by their place among those that were asked for: as they were sent, or not. */
export interface HintedStretch {
  readonly from: number;
  readonly to: number;
  readonly isHeld: boolean;
}

export class HintTable {
  /** Within the group. */
  readonly #start: Uint8Array;
  /** 0: nothing. */
  readonly #count: Uint8Array;
  /** Of each page. What only seems to be the same the destination tells from its digest, and asks for. */
  readonly #marks: Uint32Array;
  /** Of all groups. */
  pages = 0;

  constructor(readonly groups: number) {
    this.#start = new Uint8Array(groups);
    this.#count = new Uint8Array(groups);
    this.#marks = new Uint32Array(groups * groupPages);
  }

  startOf(group: number): number {
    return this.#start[group]!;
  }

  countOf(group: number): number {
    return this.#count[group]!;
  }

  /** @param bytes - of the pages, from `at` on */
  set(group: number, start: number, count: number, bytes: Buffer, at = 0): void {
    this.pages += count - this.#count[group]!;
    this.#start[group] = start;
    this.#count[group] = count;
    for (let page = 0; page < count; page++)
      this.#marks[group * groupPages + start + page] = markOf(bytes, at + page * pageBytes);
  }

  /** Whether the destination holds just these pages, as they are. */
  isSame(group: number, start: number, count: number, bytes: Buffer, at: number): boolean {
    if (this.#start[group] !== start || this.#count[group] !== count) return false;
    for (let page = 0; page < count; page++)
      if (!this.#isMarked(group, start + page, bytes, at + page * pageBytes)) return false;
    return true;
  }

  /** What has become of pages of a group. @param bytes - as they are now */
  compare(group: number, start: number, count: number, bytes: Buffer): HintedStretch[] {
    const end = this.#start[group]! + this.#count[group]!;
    const stretches: { from: number; to: number; isHeld: boolean }[] = [];
    for (let page = 0; page < count; page++) {
      const isIn = start + page >= this.#start[group]! && start + page < end;
      const isHeld = isIn && this.#isMarked(group, start + page, bytes, page * pageBytes);
      const last = stretches.at(-1);
      if (last?.isHeld === isHeld) last.to = page + 1;
      else stretches.push({ from: page, to: page + 1, isHeld });
    }
    return stretches;
  }

  /** Forgets the pages of a group before this one. */
  clearBefore(group: number, start: number): void {
    const end = this.#start[group]! + this.#count[group]!;
    const from = Math.min(end, Math.max(start, this.#start[group]!));
    this.pages -= from - this.#start[group]!;
    this.#start[group] = from;
    this.#count[group] = end - from;
  }

  clear(group: number): void {
    this.pages -= this.#count[group]!;
    this.#count[group] = 0;
  }

  clearAll(): void {
    this.#count.fill(0);
    this.pages = 0;
  }

  #isMarked(group: number, page: number, bytes: Buffer, at: number): boolean {
    return this.#marks[group * groupPages + page] === markOf(bytes, at);
  }
}

function markOf(bytes: Buffer, at: number): number {
  return crc32(bytes.subarray(at, at + pageBytes));
}
