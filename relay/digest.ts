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

/** Whether these are the blocks of one guest, in one order. */
export function areSameBlocks(some: readonly BlockSize[], others: readonly BlockSize[]): boolean {
  const isSame = ({ name, lengthBytes }: BlockSize, at: number) =>
    name === others[at]?.name && lengthBytes === others[at].lengthBytes;
  return some.length === others.length && some.every(isSame);
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
const rootBytes = 32;
const fillMark = 0x66696c6c;
/** The table is folded in pieces of so many pages, 64 KiB of it. */
const chunkPages = 4096;
/** Of a piece: folded as it is; to be folded; written since it was last looked at. */
const [folded, stale, hot] = [0, 1, 2];
/** Of SHA-256 that is no longer than what else a relay does at once. */
const maxChunksAtOnce = 32;
const foldIntervalMs = 50;

interface BlockTable {
  readonly name: string;
  readonly words: Uint32Array;
  /** A SHA-256 of each piece, as far as its state says so. */
  readonly roots: Buffer;
  readonly states: Uint8Array;
}

/**
 * Which version of every page a side has seen or delivered last: the digest of the run it came in, with its place in
 * the run; and all bytes relayed without being understood. Sixteen bytes a page, 0.4 % of the guest's memory. Both
 * relays keep one and compare the roots: a page that was lost, torn or left stale makes them differ.
 */
export class MemoryDigest {
  readonly #blocks: readonly BlockTable[];
  readonly #opaque = createHash('sha256');
  /** Where the next look for what has come to rest begins. */
  #at = { block: 0, chunk: 0 };

  constructor(blocks: readonly BlockSize[]) {
    this.#blocks = blocks.map(({ name, lengthBytes }) => {
      const pages = Math.ceil(lengthBytes / pageBytes);
      const chunks = Math.ceil(pages / chunkPages);
      return {
        name,
        words: new Uint32Array(pages * wordsPerPage),
        roots: Buffer.alloc(chunks * rootBytes),
        states: new Uint8Array(chunks).fill(stale),
      };
    });
  }

  /** Pages `from` to `to` of the run that begins at `page` and has this digest. */
  setRun(block: number, page: number, from: number, to: number, digest: Buffer): void {
    const { words, states } = this.#blocks[block]!;
    if (from < to) states.fill(hot, chunkOf(page + from), chunkOf(page + to - 1) + 1);
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
    const { words, states } = this.#blocks[block]!;
    if (count > 0) states.fill(hot, chunkOf(page), chunkOf(page + count - 1) + 1);
    words.fill(0, page * wordsPerPage, (page + count) * wordsPerPage);
    for (let at = page * wordsPerPage; at < (page + count) * wordsPerPage; at += wordsPerPage) {
      words[at] = fillMark;
      words[at + 1] = fill;
    }
  }

  opaque(bytes: Buffer): void {
    this.#opaque.update(bytes);
  }

  /** Folds some of what has not been written since the last call: the less is left for `root`. */
  foldRested(): void {
    let left = maxChunksAtOnce;
    const chunks = this.#blocks.reduce((sum, { states }) => sum + states.length, 0);
    for (let looked = 0; looked < chunks && left > 0; looked++) {
      const { block, chunk } = this.#at;
      const table = this.#blocks[block]!;
      if (table.states[chunk] === hot) table.states[chunk] = stale;
      else if (table.states[chunk] === stale) {
        foldChunk(table, chunk);
        left--;
      }
      this.#at = chunk + 1 < table.states.length ? { block, chunk: chunk + 1 } : this.#nextBlock(block);
    }
  }

  /** Does that from time to time until it is disposed of. */
  foldInBackground(): Disposable {
    const timer = setInterval(() => this.foldRested(), foldIntervalMs);
    timer.unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** Folds all there is. */
  fold(): void {
    for (const table of this.#blocks)
      for (let chunk = 0; chunk < table.states.length; chunk++)
        if (table.states[chunk] !== folded) foldChunk(table, chunk);
  }

  /** 32 bytes over everything. Can be taken at any time, more than once. */
  root(): Buffer {
    this.fold();
    const root = createHash('sha256');
    for (const { name, words, roots } of this.#blocks) {
      root.update(`${name}\0${words.length}\0`);
      root.update(roots);
    }
    root.update(this.#opaque.copy().digest());
    return root.digest();
  }

  #nextBlock(block: number): { block: number; chunk: number } {
    for (let step = 1; step <= this.#blocks.length; step++) {
      const next = (block + step) % this.#blocks.length;
      if (this.#blocks[next]!.states.length > 0) return { block: next, chunk: 0 };
    }
    return { block: 0, chunk: 0 };
  }
}

function chunkOf(page: number): number {
  return Math.floor(page / chunkPages);
}

function foldChunk({ words, roots, states }: BlockTable, chunk: number): void {
  const piece = words.subarray(chunk * chunkPages * wordsPerPage, (chunk + 1) * chunkPages * wordsPerPage);
  const bytes = new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength);
  createHash('sha256')
    .update(bytes)
    .digest()
    .copy(roots, chunk * rootBytes);
  states[chunk] = folded;
}
