/**
 * What the link takes and what memory costs on it, from the source's samples, by the source's clock: who is told of them may
 * be too busy to take them one by one.
 */
import { pageBytes } from './units.js';

interface Point {
  readonly atMs: number;
  readonly wireBytes: number;
  readonly memoryBytes: number;
}

const windowMs = 1000;
/** How fast a speed that is not seen again is forgotten, each sample. */
const forgetting = 0.95;
/** Dirty memory seldom compresses better than this, however well the first pass did. */
const leastRatio = 0.3;

export class LinkMeter {
  #points: Point[] = [];
  #bestBytesPerSecond = 0;

  /**
   * @param atMs - when it was so, by any clock that only counts
   * @param isBusy - whether the link had as much to do as it can: what it takes otherwise says nothing against it
   */
  add(atMs: number, wireBytes: number, pagesSeen: number, isBusy = true): void {
    this.#points.push({ atMs, wireBytes, memoryBytes: pagesSeen * pageBytes });
    while (this.#points.length > 2 && this.#points[1]!.atMs <= atMs - windowMs) this.#points.shift();
    const { bytesPerSecond } = this;
    if (this.#spanMs >= windowMs / 3)
      this.#bestBytesPerSecond = Math.max(bytesPerSecond, this.#bestBytesPerSecond * (isBusy ? forgetting : 1));
  }

  get #spanMs(): number {
    return this.#points.length < 2 ? 0 : this.#points.at(-1)!.atMs - this.#points[0]!.atMs;
  }

  /** Over the last second. */
  get bytesPerSecond(): number {
    const spanMs = this.#spanMs;
    return spanMs === 0 ? 0 : ((this.#points.at(-1)!.wireBytes - this.#points[0]!.wireBytes) / spanMs) * 1000;
  }

  /** What the link has lately shown it can take: it may have had little to do in the last second. */
  get capacityBytesPerSecond(): number {
    return Math.max(this.#bestBytesPerSecond, this.bytesPerSecond);
  }

  /** Bytes on the wire for each byte of memory, over the last second. */
  get wireBytesPerMemoryByte(): number {
    if (this.#points.length < 2) return 1;
    const first = this.#points[0]!;
    const last = this.#points.at(-1)!;
    const memoryBytes = last.memoryBytes - first.memoryBytes;
    if (memoryBytes === 0) return 1;
    return Math.min(1.05, Math.max(leastRatio, (last.wireBytes - first.wireBytes) / memoryBytes));
  }
}
