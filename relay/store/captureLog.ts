/**
 * What another source relay would need of a guest whose memory is kept in files, should this one die while the guest
 * runs elsewhere: what came through QEMU's stream, which is then nowhere else on this host. A file that is appended to at
 * memory speed and never read by the relay that writes it.
 *
 *   log   = "VMMIGCAP", record*, end
 *   blocks = u8 1, be32 length, what the destination is told the blocks by
 *   page   = u8 2, be16 block, be32 page, the page's bytes
 *   fill   = u8 3, be16 block, be32 page, be32 count, u8 fill
 *   forget = u8 4: the cache map so far holds no longer
 *   cache  = u8 5, be32 length, a part of the cache map, as hints are coded
 *   end    = u8 6: the guest has stopped, and all of its memory that is not in files is above
 *
 * The latest record of a page holds. A file without its end is worth nothing.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { pageBytes } from '../digest.js';
import { StoreError } from './errors.js';
import type { PageStore } from './pageStore.js';

/** Where pages go. */
type PageSink = Pick<PageStore, 'putPage' | 'putFill' | 'putReference'>;

const magic = Buffer.from('VMMIGCAP', 'latin1');
const kind = { blocks: 1, page: 2, fill: 3, forget: 4, cache: 5, end: 6 } as const;
const chunkBytes = 256 * 1024;
/** A guest with more outside of its files has to do without. */
const defaultLimitBytes = 512 * 2 ** 20;

export class CaptureLog implements Disposable {
  readonly #limitBytes: number;
  readonly #chunk = Buffer.allocUnsafeSlow(chunkBytes);
  #used = 0;
  #writtenBytes = 0;
  /** Null once it is complete, or worth nothing. */
  #fd: number | null;

  private constructor(fd: number, limitBytes: number) {
    this.#fd = fd;
    this.#limitBytes = limitBytes;
    this.#add(magic);
  }

  /** @returns null where the file cannot be made: the guest has to do without */
  static create(path: string, limitBytes = defaultLimitBytes): CaptureLog | null {
    try {
      return new CaptureLog(openSync(path, 'wx', 0o600), limitBytes);
    } catch {
      return null;
    }
  }

  blocks(payload: Buffer): void {
    this.#addLong(kind.blocks, payload);
  }

  /** In place of the cache map before. @param payloads - as hints are coded */
  cache(payloads: readonly Buffer[]): void {
    this.#add(Buffer.of(kind.forget));
    for (const payload of payloads) this.#addLong(kind.cache, payload);
  }

  /** What is put there goes into the store and is noted here. */
  noting(store: PageSink): PageSink {
    return {
      putPage: (block, page, source, start) => {
        store.putPage(block, page, source, start);
        this.#page(block, page, source, start);
      },
      putFill: (block, page, count, fill) => {
        store.putFill(block, page, count, fill);
        const record = this.#header(kind.fill, block, page, 12);
        record.writeUInt32BE(count, 7);
        record[11] = fill;
        this.#add(record);
      },
      putReference: (block, page, count, disk, diskOffsetBytes, digest, bytes) => {
        store.putReference(block, page, count, disk, diskOffsetBytes, digest, bytes);
        for (let at = 0; at < count; at++) this.#page(block, page + at, bytes, at * pageBytes);
      },
    };
  }

  /** Nothing follows. */
  end(): void {
    this.#add(Buffer.of(kind.end));
    this.#write();
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #page(block: number, page: number, source: Buffer, start: number): void {
    this.#add(this.#header(kind.page, block, page, 7));
    this.#add(source, start, start + pageBytes);
  }

  #header(type: number, block: number, page: number, lengthBytes: number): Buffer {
    const record = Buffer.allocUnsafe(lengthBytes);
    record[0] = type;
    record.writeUInt16BE(block, 1);
    record.writeUInt32BE(page, 3);
    return record;
  }

  #addLong(type: number, payload: Buffer): void {
    const header = Buffer.allocUnsafe(5);
    header[0] = type;
    header.writeUInt32BE(payload.length, 1);
    this.#add(header);
    this.#add(payload);
  }

  #add(bytes: Buffer, from = 0, to = bytes.length): void {
    for (let at = from; at < to && this.#fd !== null; ) {
      const copied = bytes.copy(this.#chunk, this.#used, at, to);
      at += copied;
      this.#used += copied;
      if (this.#used === chunkBytes) this.#write();
    }
  }

  /** A file that cannot be written stays without its end, and the switch goes on. */
  #write(): void {
    try {
      for (let at = 0; at < this.#used && this.#fd !== null; )
        at += writeSync(this.#fd, this.#chunk, at, this.#used - at);
      this.#writtenBytes += this.#used;
      if (this.#writtenBytes > this.#limitBytes) this[Symbol.dispose]();
    } catch {
      this[Symbol.dispose]();
    }
    this.#used = 0;
  }
}

/** What a log holds. */
export interface LoggedCapture {
  readonly blocks: Buffer;
  /** Coded as hints are. */
  readonly cache: readonly Buffer[];
  /** Puts all pages there. */
  replay(sink: Pick<PageSink, 'putPage' | 'putFill'>): void;
}

/** @throws StoreError `VMMIG_STORE_CORRUPT` when the file is not there, or not whole */
export function readCaptureLog(path: string): LoggedCapture {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new StoreError('VMMIG_STORE_CORRUPT', `what was kept of the guest cannot be read: ${path}`, cause);
  }
  const incomplete = () => new StoreError('VMMIG_STORE_CORRUPT', `what was kept of the guest is not whole: ${path}`);
  if (!bytes.subarray(0, magic.length).equals(magic)) throw incomplete();
  let blocks: Buffer | null = null;
  let cache: Buffer[] = [];
  /** Where the records of pages are. */
  const pages: number[] = [];
  const take = (at: number, lengthBytes: number) => {
    if (at + lengthBytes > bytes.length) throw incomplete();
    return bytes.subarray(at, at + lengthBytes);
  };
  for (let at = magic.length; ; ) {
    const type = take(at, 1)[0];
    if (type === kind.end) break;
    if (type === kind.page || type === kind.fill) {
      pages.push(at);
      at += take(at, type === kind.page ? 7 + pageBytes : 12).length;
    } else if (type === kind.forget) {
      cache = [];
      at++;
    } else if (type === kind.blocks || type === kind.cache) {
      const payload = take(at + 5, take(at, 5).readUInt32BE(1));
      if (type === kind.blocks) blocks = payload;
      else cache.push(payload);
      at += 5 + payload.length;
    } else throw incomplete();
  }
  if (blocks === null) throw incomplete();
  return {
    blocks,
    cache,
    replay(sink) {
      for (const at of pages) {
        const block = bytes.readUInt16BE(at + 1);
        const page = bytes.readUInt32BE(at + 3);
        if (bytes[at] === kind.page) sink.putPage(block, page, bytes, at + 7);
        else sink.putFill(block, page, bytes.readUInt32BE(at + 7), bytes[at + 11]!);
      }
    },
  };
}
