/** The runs that the source has hinted at, and what has become of each. Columns that grow: there may be millions. */
import { digestBytes } from '../digest.js';
import type { HintRun } from '../link/hints.js';

/** A run that the stream has passed is `gone`: whatever is known about it is out of date. */
export const runState = { waiting: 0, reading: 1, placed: 2, gone: 3 } as const;

const firstCapacity = 1024;

export class HintedRuns {
  count = 0;
  block = new Uint16Array(firstCapacity);
  page = new Uint32Array(firstCapacity);
  /** Pages of a run: `maxReferencePages` at most. */
  length = new Uint8Array(firstCapacity);
  disk = new Uint16Array(firstCapacity);
  diskOffsetBytes = new Float64Array(firstCapacity);
  state = new Uint8Array(firstCapacity);
  /** One byte a run: it has been placed, whatever came after. */
  wasPlaced = new Uint8Array(firstCapacity);
  #digests = new Uint8Array(firstCapacity * digestBytes);

  add({ block, page, count, disk, diskOffsetBytes }: HintRun): void {
    const at = this.count++;
    if (at === this.block.length) this.#grow();
    this.block[at] = block;
    this.page[at] = page;
    this.length[at] = count;
    this.disk[at] = disk;
    this.diskOffsetBytes[at] = diskOffsetBytes;
  }

  get(at: number): HintRun {
    return {
      block: this.block[at]!,
      page: this.page[at]!,
      count: this.length[at]!,
      disk: this.disk[at]!,
      diskOffsetBytes: this.diskOffsetBytes[at]!,
    };
  }

  setPlaced(at: number, digest: Buffer): void {
    this.state[at] = runState.placed;
    this.wasPlaced[at] = 1;
    this.#digests.set(digest, at * digestBytes);
  }

  hasDigest(at: number, digest: Buffer): boolean {
    return digest.compare(this.#digests, at * digestBytes, (at + 1) * digestBytes) === 0;
  }

  #grow(): void {
    const capacity = Math.ceil(1.5 * this.block.length);
    const grown = <T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(column: T, longer: T): T => {
      longer.set(column);
      return longer;
    };
    this.block = grown(this.block, new Uint16Array(capacity));
    this.page = grown(this.page, new Uint32Array(capacity));
    this.length = grown(this.length, new Uint8Array(capacity));
    this.disk = grown(this.disk, new Uint16Array(capacity));
    this.diskOffsetBytes = grown(this.diskOffsetBytes, new Float64Array(capacity));
    this.state = grown(this.state, new Uint8Array(capacity));
    this.wasPlaced = grown(this.wasPlaced, new Uint8Array(capacity));
    this.#digests = grown(this.#digests, new Uint8Array(capacity * digestBytes));
  }
}
