/**
 * The cache map: which guest pages hold copies of which disk ranges, as the guest's agent last reported. It is a
 * hint; nothing may trust it without comparing the bytes.
 *
 * Runs arrive in groups that replace each other, and are kept in columns that are only appended to; what was replaced
 * is squeezed out when it is more than what counts.
 */

import { PAGE_BYTES } from './pages.js';

/** Runs of a cache map, one entry per run in each column, ascending by page and without overlaps. */
export interface CacheRuns {
  count: number;
  /** First guest page frame number. */
  pfn: Float64Array;
  pageCount: Uint32Array;
  /** Index into the list of guest disks. */
  disk: Uint16Array;
  /** Where the first page's bytes are on the disk: a multiple of 512. */
  diskOffsetBytes: Float64Array;
}

/** Sorting packs a page number of 31 bits and an index of 22 bits into one exact number. */
const MAX_RUNS = 2 ** 22;
/** A group's place: start * PLACE_SCALE + count, in one number. */
const PLACE_SCALE = 2 ** 13;
const FIRST_CAPACITY = 4096;

function createColumns(capacity: number): CacheRuns {
  return {
    count: 0,
    pfn: new Float64Array(capacity),
    pageCount: new Uint32Array(capacity),
    disk: new Uint16Array(capacity),
    diskOffsetBytes: new Float64Array(capacity),
  };
}

function push(to: CacheRuns, pfn: number, pages: number, disk: number, diskOffsetBytes: number): void {
  const at = to.count++;
  to.pfn[at] = pfn;
  to.pageCount[at] = pages;
  to.disk[at] = disk;
  to.diskOffsetBytes[at] = diskOffsetBytes;
}

/** The groups reported so far; a sink for decoded GROUPS frames. */
export class CacheMap {
  readonly #maxRuns: number;
  #runs = createColumns(FIRST_CAPACITY);
  readonly #places = new Map<number, number>();
  readonly #untracked = new Set<number>();
  #live = 0;
  #group = 0;
  #groupTracked = true;
  #groupStart = 0;
  #droppedPages = 0;

  /** @param maxRuns - bound on memory: runs beyond it are dropped and counted; 4 Mi at most */
  constructor(maxRuns: number = MAX_RUNS) {
    this.#maxRuns = Math.min(maxRuns, MAX_RUNS);
  }

  /** Pages dropped since the scan began because there were too many runs. */
  get droppedPages(): number {
    return this.#droppedPages;
  }

  /** A full scan begins: nothing reported before counts. */
  clear(): void {
    this.#places.clear();
    this.#untracked.clear();
    this.#runs = createColumns(FIRST_CAPACITY);
    this.#live = 0;
    this.#droppedPages = 0;
  }

  /** A scan for changes begins: what the agent does not keep track of, it will report again. */
  beginChanges(): void {
    for (const id of this.#untracked) this.remove(id);
    this.#droppedPages = 0;
  }

  beginGroup(id: number, tracked: boolean): void {
    this.remove(id);
    if (this.#runs.count > 2 * this.#live + FIRST_CAPACITY) this.#rebuild(this.#live * 2);
    this.#group = id;
    this.#groupTracked = tracked;
    this.#groupStart = this.#runs.count;
  }

  run(pfn: number, pages: number, disk: number, diskOffsetBytes: number): void {
    if (this.#live + this.#runs.count - this.#groupStart >= this.#maxRuns) {
      this.#droppedPages += pages;
      return;
    }
    if (this.#runs.count === this.#runs.pfn.length) this.#grow();
    push(this.#runs, pfn, pages, disk, diskOffsetBytes);
  }

  endGroup(): void {
    const count = this.#runs.count - this.#groupStart;
    if (count === 0) return;
    this.#places.set(this.#group, this.#groupStart * PLACE_SCALE + count);
    if (!this.#groupTracked) this.#untracked.add(this.#group);
    this.#live += count;
  }

  remove(id: number): void {
    const place = this.#places.get(id);
    if (place === undefined) return;
    this.#live -= place % PLACE_SCALE;
    this.#places.delete(id);
    this.#untracked.delete(id);
  }

  #grow(): void {
    const old = this.#runs;
    this.#runs = createColumns(old.count * 2);
    this.#runs.count = old.count;
    this.#runs.pfn.set(old.pfn);
    this.#runs.pageCount.set(old.pageCount);
    this.#runs.disk.set(old.disk);
    this.#runs.diskOffsetBytes.set(old.diskOffsetBytes);
  }

  /** Copies the groups that count into new columns. */
  #rebuild(capacity: number): void {
    const old = this.#runs;
    const fresh = createColumns(Math.max(capacity, FIRST_CAPACITY));
    for (const [id, place] of this.#places) {
      const start = Math.floor(place / PLACE_SCALE);
      const count = place % PLACE_SCALE;
      this.#places.set(id, fresh.count * PLACE_SCALE + count);
      fresh.pfn.set(old.pfn.subarray(start, start + count), fresh.count);
      fresh.pageCount.set(old.pageCount.subarray(start, start + count), fresh.count);
      fresh.disk.set(old.disk.subarray(start, start + count), fresh.count);
      fresh.diskOffsetBytes.set(old.diskOffsetBytes.subarray(start, start + count), fresh.count);
      fresh.count += count;
    }
    this.#runs = fresh;
  }

  /**
   * All runs, sorted and joined where they continue each other in memory and on disk. Where two claim the same page,
   * one loses it.
   */
  toRuns(): CacheRuns {
    this.#rebuild(this.#live);
    const runs = this.#runs;
    const keys = new Float64Array(runs.count);
    for (let i = 0; i < runs.count; i++) keys[i] = runs.pfn[i]! * MAX_RUNS + i;
    keys.sort();
    const sorted = createColumns(runs.count);
    let end = 0;
    for (const key of keys) {
      const i = key % MAX_RUNS;
      const cut = Math.max(0, end - runs.pfn[i]!);
      const pages = runs.pageCount[i]! - cut;
      if (pages <= 0) continue;
      const pfn = runs.pfn[i]! + cut;
      const offset = runs.diskOffsetBytes[i]! + cut * PAGE_BYTES;
      const last = sorted.count - 1;
      const continues =
        last >= 0 &&
        pfn === end &&
        sorted.disk[last] === runs.disk[i] &&
        sorted.diskOffsetBytes[last]! + sorted.pageCount[last]! * PAGE_BYTES === offset;
      if (continues) sorted.pageCount[last]! += pages;
      else push(sorted, pfn, pages, runs.disk[i]!, offset);
      end = pfn + pages;
    }
    return trim(sorted);
  }
}

function trim(runs: CacheRuns): CacheRuns {
  return {
    count: runs.count,
    pfn: runs.pfn.slice(0, runs.count),
    pageCount: runs.pageCount.slice(0, runs.count),
    disk: runs.disk.slice(0, runs.count),
    diskOffsetBytes: runs.diskOffsetBytes.slice(0, runs.count),
  };
}

/** Pages in all runs. */
export function countPages(runs: CacheRuns): number {
  let pages = 0;
  for (let i = 0; i < runs.count; i++) pages += runs.pageCount[i]!;
  return pages;
}
