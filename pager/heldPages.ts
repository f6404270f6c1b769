/**
 * The destination's end of `FileCapture`'s hints: pages of a guest that still ran when they were read. They count only when
 * the source has told the digest of the final bytes, and these are the same. What exceeds the limit is dropped: the source
 * is then asked for it.
 */
import { groupPages, pageBytes } from './pageGroups.js';
import type { Digester } from './pageTeller.js';

interface HeldRun {
  readonly page: number;
  readonly bytes: Buffer;
}

/** As many as a block has pages at most: their number has 32 bits on the link. */
const groupsPerBlock = 2 ** 28;

export class HeldPages {
  /** By group. */
  readonly #runs = new Map<number, readonly HeldRun[]>();
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
        this.#runs.set(key, [{ page: at, bytes: copy }]);
        this.#heldBytes += lengthBytes;
      }
      at = end;
    }
  }

  /** What is held of this run, if it has the digest, or null; what has been compared is held no longer. */
  take(block: number, page: number, count: number, digest: Buffer): Buffer | null {
    const key = keyOf(block, page);
    const runs = this.#runs.get(key) ?? [];
    const run = runs.find((one) => one.page <= page && page + count <= endOf(one));
    if (run === undefined) return null;
    const part = (from: number, to: number) =>
      run.bytes.subarray((from - run.page) * pageBytes, (to - run.page) * pageBytes);
    const left = runs.filter((one) => one !== run);
    if (run.page < page) left.push({ page: run.page, bytes: onItsOwn(part(run.page, page)) });
    if (page + count < endOf(run)) left.push({ page: page + count, bytes: onItsOwn(part(page + count, endOf(run))) });
    if (left.length > 0) this.#runs.set(key, left);
    else this.#runs.delete(key);
    this.#heldBytes -= count * pageBytes;
    const bytes = part(page, page + count);
    return this.digester.digest(bytes).equals(digest) ? bytes : null;
  }

  /** All of it, when nothing will be confirmed any more. */
  clear(): void {
    this.#runs.clear();
    this.#heldBytes = 0;
  }

  #forget(key: number): void {
    for (const { bytes } of this.#runs.get(key) ?? []) this.#heldBytes -= bytes.length;
    this.#runs.delete(key);
  }
}

/** A small part does not keep all the rest in memory. */
function onItsOwn(part: Buffer): Buffer {
  if (2 * part.length >= part.buffer.byteLength) return part;
  const copy = Buffer.allocUnsafeSlow(part.length);
  part.copy(copy);
  return copy;
}

function endOf({ page, bytes }: HeldRun): number {
  return page + bytes.length / pageBytes;
}

function keyOf(block: number, page: number): number {
  return block * groupsPerBlock + Math.floor(page / groupPages);
}
