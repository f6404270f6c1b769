/**
 * Digests of guest pages: what a teleported run is compared by, and what proves at the end that both
 * sides hold the same memory. SHA-256 cut to 128 bits: a guest that wants to have a wrong page accepted
 * must find a collision, and Node hashes 4 KiB as fast with it as with non-cryptographic digests
 * behind a binding (see ARCHITECTURE.md).
 */
import { createHash, hash } from 'node:crypto';

export const pageBytes = 4096;
export const digestBytes = 16;

/** The digest of one page of `source`, written to `into` at `at`. */
export function digestPage(source: Buffer, start: number, into: Buffer, at: number): void {
  hash('sha256', source.subarray(start, start + pageBytes), 'buffer').copy(into, at, 0, digestBytes);
}

/** The digest of a run of pages: of its page digests, so that no page is read twice. */
export function digestRun(pageDigests: Buffer): Buffer {
  return hash('sha256', pageDigests, 'buffer').subarray(0, digestBytes);
}

const fillDigests = new Map<number, Buffer>();

/** The digest of a page that holds one byte value throughout; zero pages mostly. */
export function digestOfFill(fill: number): Buffer {
  let digest = fillDigests.get(fill);
  if (digest === undefined) {
    digest = Buffer.alloc(digestBytes);
    digestPage(Buffer.alloc(pageBytes, fill), 0, digest, 0);
    fillDigests.set(fill, digest);
  }
  return digest;
}

export interface BlockSize {
  readonly name: string;
  readonly lengthBytes: number;
}

/**
 * The digest of every page's last version, and of all bytes relayed without being understood.
 * Sixteen bytes a page: 0.4 % of the guest's memory. Both relays keep one and compare the roots.
 */
export class MemoryDigest {
  readonly #blocks: { name: string; digests: Buffer }[];
  readonly #opaque = createHash('sha256');

  constructor(blocks: readonly BlockSize[]) {
    this.#blocks = blocks.map((block) => ({
      name: block.name,
      digests: Buffer.alloc(Math.ceil(block.lengthBytes / pageBytes) * digestBytes),
    }));
  }

  /** Where a block's digests are kept: sixteen bytes a page, in page order. */
  digestsOf(blockIndex: number): Buffer {
    return this.#blocks[blockIndex]!.digests;
  }

  fill(blockIndex: number, page: number, count: number, fill: number): void {
    const digests = this.digestsOf(blockIndex);
    digests.fill(digestOfFill(fill), page * digestBytes, (page + count) * digestBytes);
  }

  opaque(bytes: Buffer): void {
    this.#opaque.update(bytes);
  }

  /** 32 bytes over everything. Can be taken at any time, more than once. */
  root(): Buffer {
    const root = createHash('sha256');
    for (const { name, digests } of this.#blocks) {
      root.update(`${name}\0${digests.length}\0`);
      root.update(digests);
    }
    root.update(this.#opaque.copy().digest());
    return root.digest();
  }
}
