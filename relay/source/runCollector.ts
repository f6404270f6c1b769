/** Collects the pages of one run that need not be sent as they come in QEMU's stream. */
import { pageBytes } from '../digest.js';

/** What a page belongs to of what the destination has, or may have: all pages of a run are told together. */
export interface RunPlace {
  readonly run: number;
  readonly disk: number;
  readonly diskOffsetBytes: number;
}

export class RunCollector {
  block = 0;
  page = 0;
  count = 0;
  disk = 0;
  diskOffsetBytes = 0;
  #run = 0;

  /**
   * @param memory - for the pages of the longest run; may be replaced between two runs
   * @param close - takes what has been collected, and sets `count` to 0
   */
  constructor(
    public memory: Buffer,
    private readonly close: () => void,
  ) {}

  collect(block: number, page: number, place: RunPlace, source: Buffer, start: number): void {
    if (!this.#continues(block, page, place)) {
      this.close();
      this.#begin(block, page, place);
    }
    source.copy(this.memory, this.count * pageBytes, start, start + pageBytes);
    this.count++;
  }

  /** A page of one byte value throughout, if it is among others. @returns whether it is */
  collectFill(block: number, page: number, place: RunPlace, fill: number): boolean {
    if (!this.#continues(block, page, place)) return false;
    this.memory.fill(fill, this.count * pageBytes, (this.count + 1) * pageBytes);
    this.count++;
    return true;
  }

  /** The pages so far. */
  get bytes(): Buffer {
    return this.memory.subarray(0, this.count * pageBytes);
  }

  /** Whether a page belongs to the run that was begun. Runs end where the place's do: the destination may have them as such. */
  #continues(block: number, page: number, { run, disk }: RunPlace): boolean {
    const isSame = block === this.block && run === this.#run && disk === this.disk;
    return this.count > 0 && isSame && page === this.page + this.count;
  }

  #begin(block: number, page: number, place: RunPlace): void {
    this.block = block;
    this.page = page;
    this.count = 0;
    this.disk = place.disk;
    this.diskOffsetBytes = place.diskOffsetBytes;
    this.#run = place.run;
  }
}
