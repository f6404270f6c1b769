/** A set of 4 KiB pages, known by the digest of their bytes. Pages of zeroes are never members. */
import { xxh64 } from '@node-rs/xxhash';

const PAGE_BYTES = 4096;
const zeroes = Buffer.alloc(PAGE_BYTES);

export class PageSet {
  readonly digests = new Set<bigint>();

  add(page: Buffer): void {
    if (!page.equals(zeroes)) this.digests.add(xxh64(page));
  }

  /** Adds all whole pages of `bytes`. */
  addAll(bytes: Buffer): void {
    for (let at = 0; at + PAGE_BYTES <= bytes.length; at += PAGE_BYTES) this.add(bytes.subarray(at, at + PAGE_BYTES));
  }

  get size(): number {
    return this.digests.size;
  }

  /** How many of this set's pages are in another one. */
  countIn(other: PageSet): number {
    let count = 0;
    for (const digest of this.digests) if (other.digests.has(digest)) count++;
    return count;
  }

  intersect(other: PageSet): PageSet {
    const both = new PageSet();
    for (const digest of this.digests) if (other.digests.has(digest)) both.digests.add(digest);
    return both;
  }
}
