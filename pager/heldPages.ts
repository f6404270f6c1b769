/**
 * The destination's end of `FileCapture`'s hints: pages of a guest that still ran when they were read. They count only when
 * the source has told the digest of the final bytes, and these are the same. What exceeds the limit is dropped: the source
 * is then asked for it.
 */
import { groupPages, pageBytes } from './captureBlock.js';
import type { Digester } from './pageTeller.js';

interface HeldRun {
  readonly page: number;
  readonly bytes: Buffer;
}

/** As many as a block has pages at most: their number has 32 bits on the link. */
const groupsPerBlock = 2 ** 28;

export class HeldPages {
  readonly #runs = new Map<number, HeldRun>();
  #heldBytes = 0;

  constructor(
    private readonly digester: Digester,
    private readonly limitBytes: number,
  ) {}

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Keeps a copy of a run's pages, `bytes[start …)`, in place of what was held of their groups. */
  hold(block: number, page: number, count: number, bytes: Buffer, start: number): void {
    for (let at = page; at < page + count; ) {
      const end = Math.min(page + count, (Math.floor(at / groupPages) + 1) * groupPages);
      const key = keyOf(block, at);
      this.#forget(key);
      const lengthBytes = (end - at) * pageBytes;
      if (this.#heldBytes + lengthBytes <= this.limitBytes) {
        const copy = Buffer.allocUnsafeSlow(lengthBytes);
        bytes.copy(copy, 0, start + (at - page) * pageBytes);
        this.#runs.set(key, { page: at, bytes: copy });
        this.#heldBytes += lengthBytes;
      }
      at = end;
    }
  }

  /** What is held of this run, if it has the digest, or null; in either case it is held no longer. */
  take(block: number, page: number, count: number, digest: Buffer): Buffer | null {
    const key = keyOf(block, page);
    const run = this.#runs.get(key);
    this.#forget(key);
    if (run === undefined || run.page !== page || run.bytes.length !== count * pageBytes) return null;
    return this.digester.digest(run.bytes).equals(digest) ? run.bytes : null;
  }

  /** All of it, when nothing will be confirmed any more. */
  clear(): void {
    this.#runs.clear();
    this.#heldBytes = 0;
  }

  #forget(key: number): void {
    this.#heldBytes -= this.#runs.get(key)?.bytes.length ?? 0;
    this.#runs.delete(key);
  }
}

function keyOf(block: number, page: number): number {
  return block * groupsPerBlock + Math.floor(page / groupPages);
}
