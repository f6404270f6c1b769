/**
 * The file that takes what does not fit in memory. It has no name as soon as it is open, so nothing of the
 * guest stays behind, whatever ends the relay. Written and read synchronously: capture has to wait for room
 * anyway, and nothing is written any more once the guest runs at the destination; a read is one unit.
 */
import { closeSync, constants, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { StoreError } from './errors.js';

/** One unit of pages, compressed, at worst a little longer than they are. Holes cost nothing on disk. */
const extentBytes = 68 * 1024;

export class SpillFile implements Disposable {
  /** -1 once it is closed: the number may be another file's then. */
  #fd: number;
  readonly #free: number[] = [];
  #extents = 0;

  /**
   * @param path - must not exist yet
   * @throws StoreError `VMMIG_STORE_SPILL_OPEN`
   */
  constructor(private readonly path: string) {
    const { O_RDWR, O_CREAT, O_EXCL } = constants;
    try {
      this.#fd = openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o600);
    } catch (cause) {
      throw new StoreError('VMMIG_STORE_SPILL_OPEN', `cannot create the spill file ${path}: ${cause}`, cause);
    }
    try {
      unlinkSync(path);
    } catch (cause) {
      closeSync(this.#fd);
      throw new StoreError('VMMIG_STORE_SPILL_OPEN', `cannot unlink the spill file ${path}: ${cause}`, cause);
    }
  }

  /**
   * @returns the extent by which the bytes are read and released
   * @throws StoreError `VMMIG_STORE_DISK_FULL`, `VMMIG_STORE_SPILL_IO`; the bytes are still the caller's then
   */
  write(bytes: Buffer): number {
    const extent = this.#free.pop() ?? this.#extents++;
    try {
      for (let at = 0; at < bytes.length; )
        at += writeSync(this.#fd, bytes, at, bytes.length - at, extent * extentBytes + at);
    } catch (cause) {
      this.release(extent);
      const code = (cause as NodeJS.ErrnoException).code;
      if (code === 'ENOSPC' || code === 'EDQUOT')
        throw new StoreError('VMMIG_STORE_DISK_FULL', `no space is left for the spill file ${this.path}`, cause);
      throw new StoreError('VMMIG_STORE_SPILL_IO', `cannot write the spill file ${this.path}: ${cause}`, cause);
    }
    return extent;
  }

  /** @throws StoreError `VMMIG_STORE_SPILL_IO` */
  read(extent: number, lengthBytes: number): Buffer {
    const bytes = Buffer.allocUnsafe(lengthBytes);
    try {
      for (let at = 0; at < lengthBytes; ) {
        const read = readSync(this.#fd, bytes, at, lengthBytes - at, extent * extentBytes + at);
        if (read === 0) throw new Error('it has become shorter');
        at += read;
      }
    } catch (cause) {
      throw new StoreError('VMMIG_STORE_SPILL_IO', `cannot read the spill file ${this.path}: ${cause}`, cause);
    }
    return bytes;
  }

  release(extent: number): void {
    this.#free.push(extent);
    if (this.#free.length < this.#extents) return;
    this.#free.length = this.#extents = 0;
    if (this.#fd >= 0) ftruncateSync(this.#fd, 0);
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
