/**
 * Digests of guest memory: what a teleported run is compared by, and what proves at the end that both sides
 * hold the same. GMAC (NIST SP 800-38D) under a key of this migration that the guest never sees: whoever
 * writes the pages cannot find two runs with one digest, and it is several times faster than SHA-256.
 * The fixed nonce gives nothing away, because digests do not leave the relays.
 */
import { createCipheriv, createHash, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';

export const pageBytes = 4096;
export const digestBytes = 16;
const nonce = Buffer.alloc(12);

/** Digests runs of pages, the same on both sides of one link. */
export class RunDigester {
  readonly #key: KeyObject;

  /** @param linkKey - the link's secret, from which the digests' own is derived */
  constructor(linkKey: Buffer) {
    this.#key = createSecretKey(Buffer.from(hkdfSync('sha256', linkKey, '', 'vmmig run digest', 16)));
  }

  /** 128 bits over `bytes`. */
  digest(bytes: Buffer): Buffer {
    const mac = createCipheriv('aes-128-gcm', this.#key, nonce);
    mac.setAAD(bytes);
    mac.final();
    return mac.getAuthTag();
  }
}

export interface BlockSize {
  readonly name: string;
  readonly lengthBytes: number;
}

/** How many pages each block has. */
export function pagesOfBlocks(blocks: readonly Pick<BlockSize, 'lengthBytes'>[]): number[] {
  return blocks.map(({ lengthBytes }) => Math.ceil(lengthBytes / pageBytes));
}

/** How many pages the guest has. */
export function totalPagesOf(blocks: readonly Pick<BlockSize, 'lengthBytes'>[]): number {
  return pagesOfBlocks(blocks).reduce((sum, pages) => sum + pages, 0);
}

const wordsPerPage = digestBytes / 4;
const fillMark = 0x66696c6c;

/**
 * Which version of every page a side has seen or delivered last: the digest of the run it came in, with its place in
 * the run; and all bytes relayed without being understood. Sixteen bytes a page, 0.4 % of the guest's memory. Both
 * relays keep one and compare the roots: a page that was lost, torn or left stale makes them differ.
 */
export class MemoryDigest {
  readonly #blocks: { name: string; words: Uint32Array }[];
  readonly #opaque = createHash('sha256');

  constructor(blocks: readonly BlockSize[]) {
    this.#blocks = blocks.map((block) => ({
      name: block.name,
      words: new Uint32Array(Math.ceil(block.lengthBytes / pageBytes) * wordsPerPage),
    }));
  }

  /** Pages `from` to `to` of the run that begins at `page` and has this digest. */
  setRun(block: number, page: number, from: number, to: number, digest: Buffer): void {
    const { words } = this.#blocks[block]!;
    const first = digest.readUInt32LE(0);
    const second = digest.readUInt32LE(4);
    const third = digest.readUInt32LE(8);
    const fourth = digest.readUInt32LE(12);
    for (let place = from, at = (page + from) * wordsPerPage; place < to; place++, at += wordsPerPage) {
      words[at] = first ^ place;
      words[at + 1] = second;
      words[at + 2] = third;
      words[at + 3] = fourth;
    }
  }

  /** Pages that hold one byte value throughout. */
  setFill(block: number, page: number, count: number, fill: number): void {
    const { words } = this.#blocks[block]!;
    words.fill(0, page * wordsPerPage, (page + count) * wordsPerPage);
    for (let at = page * wordsPerPage; at < (page + count) * wordsPerPage; at += wordsPerPage) {
      words[at] = fillMark;
      words[at + 1] = fill;
    }
  }

  opaque(bytes: Buffer): void {
    this.#opaque.update(bytes);
  }

  /** 32 bytes over everything. Can be taken at any time, more than once. */
  root(): Buffer {
    const root = createHash('sha256');
    for (const { name, words } of this.#blocks) {
      root.update(`${name}\0${words.length}\0`);
      root.update(new Uint8Array(words.buffer));
    }
    root.update(this.#opaque.copy().digest());
    return root.digest();
  }
}
