/** Collects the pages of one teleportable run as they come in QEMU's stream. */
import { pageBytes } from '../digest.js';
import type { TeleportMap } from './teleportMap.js';

export class RunCollector {
  block = 0;
  page = 0;
  count = 0;
  disk = 0;
  diskOffsetBytes = 0;
  #runOfMap = 0;

  /** @param memory - for the pages of the longest run; may be replaced between two runs */
  constructor(public memory: Buffer) {}

  /** Whether a page belongs to the run that was begun. Runs end where the map's do: the destination may have read them as such. */
  continues(block: number, page: number, map: TeleportMap): boolean {
    return this.count > 0 && block === this.block && map.run === this.#runOfMap && page === this.page + this.count;
  }

  /** @param map - that has just found the page */
  begin(block: number, page: number, map: TeleportMap): void {
    this.block = block;
    this.page = page;
    this.count = 0;
    this.disk = map.disk;
    this.diskOffsetBytes = map.diskOffsetBytes;
    this.#runOfMap = map.run;
  }

  push(source: Buffer, start: number): void {
    source.copy(this.memory, this.count * pageBytes, start, start + pageBytes);
    this.count++;
  }

  /** The pages so far. */
  get bytes(): Buffer {
    return this.memory.subarray(0, this.count * pageBytes);
  }
}
