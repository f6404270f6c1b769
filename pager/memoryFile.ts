/**
 * A file that holds a guest's memory. Its descriptor keeps the pages alive when QEMU has exited and the file has lost its
 * name. Reads copy (8 GB/s in pieces of 64 KiB, which stay in the CPU's cache): a mapping is no faster where each page
 * is read once, and a file that someone truncates would end this process with SIGBUS.
 */
import { constants, readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import koffi from 'koffi';
import { PagerError } from './errors.js';
import type { FileRun, MemorySource } from './memorySource.js';

const libc = koffi.load(null);
const lseek = libc.func('int64_t lseek64(int fd, int64_t offset, int whence)');
const fallocate = libc.func('int fallocate64(int fd, int mode, int64_t offset, int64_t length)');

/** Linux's <unistd.h> and <linux/falloc.h> */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

export class MemoryFile implements MemorySource, AsyncDisposable {
  readonly #handle: FileHandle;
  readonly #fd: number;

  private constructor(
    handle: FileHandle,
    readonly path: string,
    readonly lengthBytes: number,
  ) {
    this.#handle = handle;
    this.#fd = handle.fd;
  }

  /**
   * @param path of the file, or `/proc/PID/fd/N`
   * @throws PagerError VMMIG_MEMORY_FILE_OPEN
   */
  static async open(path: string): Promise<MemoryFile> {
    try {
      // A FIFO in the file's place must not hold this up.
      const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const file = await handle.stat();
        if (!file.isFile()) throw new Error('not a file');
        return new MemoryFile(handle, path, file.size);
      } catch (error) {
        await handle.close();
        throw error;
      }
    } catch (cause) {
      const message = `cannot open the guest's memory in ${path}: ${(cause as Error).message}`;
      throw new PagerError('VMMIG_MEMORY_FILE_OPEN', message, { cause });
    }
  }

  read(offset: number, lengthBytes: number, into: Buffer, start = 0): void {
    for (let done = 0; done < lengthBytes; ) {
      const count = this.#readSome(offset + done, lengthBytes - done, into, start + done);
      if (count === 0) throw this.#unreadable(`it ends before byte ${offset + lengthBytes}`);
      done += count;
    }
  }

  /**
   * Where the file has pages; between the runs are holes, which read as zeros and cost nothing. A file system that cannot
   * tell (hugetlbfs) has one run. The search takes some 7 ms for each GiB of data, on another thread.
   */
  async *dataRuns(offset = 0, lengthBytes = this.lengthBytes - offset, signal?: AbortSignal): AsyncGenerator<FileRun> {
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      signal?.throwIfAborted();
      const start = this.nextData(at);
      if (start >= end) return;
      const stop = Math.min(end, await this.#nextHole(start));
      yield { offset: start, lengthBytes: stop - start };
      at = stop;
    }
  }

  /** The first byte from `offset` on that is not in a hole; the file's length when there is none. Takes no time to speak of. */
  nextData(offset: number): number {
    const found = Number(lseek(this.#fd, offset, SEEK_DATA));
    return found < 0 ? this.lengthBytes : found;
  }

  /**
   * Gives pages back to the host, whoever else may have the file open: they read as zeros from now on.
   * @throws PagerError VMMIG_MEMORY_FILE_RELEASE
   */
  async release(offset = 0, lengthBytes = this.lengthBytes): Promise<void> {
    let writable: FileHandle | null = null;
    try {
      writable = await open(`/proc/self/fd/${this.#fd}`, constants.O_RDWR);
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      const { fd } = writable;
      const result = await new Promise<number>((resolve, reject) => {
        fallocate.async(fd, mode, offset, lengthBytes, (error: Error | null, value: number) => {
          if (error === null) resolve(value);
          else reject(error);
        });
      });
      if (result !== 0) throw new Error('its file system does not allow it');
    } catch (cause) {
      const message = `cannot give back the guest's memory in ${this.path}: ${(cause as Error).message}`;
      throw new PagerError('VMMIG_MEMORY_FILE_RELEASE', message, { cause });
    } finally {
      await writable?.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }

  #readSome(offset: number, lengthBytes: number, into: Buffer, start: number): number {
    try {
      return readSync(this.#fd, into, start, lengthBytes, offset);
    } catch (cause) {
      throw this.#unreadable((cause as Error).message, cause);
    }
  }

  #nextHole(offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      lseek.async(this.#fd, offset, SEEK_HOLE, (error: Error | null, found: number | bigint) => {
        if (error === null) resolve(Number(found) < 0 ? this.lengthBytes : Number(found));
        else reject(error);
      });
    });
  }

  #unreadable(why: string, cause?: unknown): PagerError {
    const message = `cannot read the guest's memory in ${this.path}: ${why}`;
    return new PagerError('VMMIG_MEMORY_FILE_READ', message, cause === undefined ? {} : { cause });
  }
}
