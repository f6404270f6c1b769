/**
 * Reads ranges of a raw image or block device, past the host's page cache: O_DIRECT where the file system takes it,
 * otherwise buffered, with the pages dropped before (they may be stale on network storage) and after each read.
 * The image may be written or grow meanwhile: what comes back is what the storage had at some moment, nothing more.
 */
import { constants, read as readFd } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { DiskReader, OpenDiskOptions } from './diskReader.js';
import type { Batch } from './elevator.js';
import { DiskError } from './errors.js';
import { ADVICE_DONTNEED, ADVICE_RANDOM, adviseFile, alignedBuffer, sizeOf } from './posix.js';
import { filled, isRange, type Range, ReadQueue, rangeError } from './readQueue.js';

/** Covers the logical sectors (512 or 4096 bytes) and file system blocks that O_DIRECT has to respect. */
const ALIGN_BYTES = 4096;
const MAX_GAP_BYTES = 64 * 1024;
const DEFAULT_MAX_READ_BYTES = 1024 * 1024;
/** libuv reads files on four threads; asking for more only queues there, unsorted. */
const DEFAULT_PARALLEL_READS = 4;
/** Storage that comes back after a failover is not given up. */
const DEFAULT_READ_TIMEOUT_MS = 60_000;
/** What is being read when a disk is closed has so long to come. */
const CLOSE_TIMEOUT_MS = 2_000;

let readsUnderWay = 0;

/**
 * Whether storage, of any disk, owes this process an answer. Each such read keeps a thread of libuv's busy, and the
 * process from ending by itself: only SIGKILL ends it.
 */
export function isWaitingForStorage(): boolean {
  return readsUnderWay > 0;
}

/**
 * Opens a raw image or block device.
 * @throws DiskError VMMIG_DISK_OPEN
 */
export async function openRawDisk(path: string, options: OpenDiskOptions = {}): Promise<DiskReader> {
  readsUnderWay += 1;
  try {
    return await beginReading(path, options);
  } finally {
    readsUnderWay -= 1;
  }
}

async function beginReading(path: string, options: OpenDiskOptions): Promise<DiskReader> {
  const { direct = 'auto', signal } = options;
  signal?.throwIfAborted();
  const opened = direct === false ? undefined : await openDirect(path);
  if (opened === undefined && direct === true) {
    throw new DiskError('VMMIG_DISK_OPEN', `${path}: the file system refuses direct I/O`);
  }
  const file = opened ?? (await openFile(path, 0));
  try {
    const kind = await file.stat();
    if (!kind.isFile() && !kind.isBlockDevice()) {
      throw new DiskError('VMMIG_DISK_OPEN', `${path} is neither a file nor a block device`);
    }
    const lengthBytes = sizeOf(file.fd);
    // Read-ahead would fill the page cache with what nobody asked for.
    if (opened === undefined) await adviseFile(file.fd, 0, 0, ADVICE_RANDOM);
    signal?.throwIfAborted();
    return new RawDisk(path, file, opened !== undefined, lengthBytes, options);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openFile(path: string, flags: number): Promise<FileHandle> {
  try {
    // Non-blocking, so that a FIFO cannot hang the caller.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK | flags);
  } catch (cause) {
    throw new DiskError('VMMIG_DISK_OPEN', `cannot open disk image ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Some file systems refuse O_DIRECT when opening, others only when reading: undefined for both. */
async function openDirect(path: string): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    file = await openFile(path, constants.O_DIRECT);
  } catch (error) {
    if (((error as Error).cause as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
  try {
    await file.read(alignedBuffer(ALIGN_BYTES, ALIGN_BYTES), 0, ALIGN_BYTES, 0);
    return file;
  } catch (cause) {
    await file.close();
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EINVAL' || code === 'EISDIR') return undefined;
    throw new DiskError('VMMIG_DISK_OPEN', `cannot read disk image ${path}: ${message}`, { cause });
  }
}

class RawDisk implements DiskReader {
  readonly counters = { readBytes: 0, reads: 0, requests: 0 };
  readonly #file: FileHandle;
  readonly #queue: ReadQueue;
  /** Reads go here first: aligned, reused, and the only memory held besides the callers' own buffers. */
  readonly #idleBuffers: Buffer[] = [];
  readonly #bufferBytes: number;
  readonly #readTimeoutMs: number;
  #isSilent = false;
  #underWay = 0;
  #lengthBytes: number;

  constructor(
    readonly path: string,
    file: FileHandle,
    readonly direct: boolean,
    lengthBytes: number,
    options: OpenDiskOptions,
  ) {
    const { parallelReads = DEFAULT_PARALLEL_READS, maxReadBytes = DEFAULT_MAX_READ_BYTES, signal } = options;
    this.#file = file;
    this.#lengthBytes = lengthBytes;
    this.#bufferBytes = alignUp(maxReadBytes) + ALIGN_BYTES;
    this.#readTimeoutMs = options.readTimeoutMs ?? DEFAULT_READ_TIMEOUT_MS;
    const isSilent = () => this.#isSilent;
    const reader = {
      read: (batch: Batch<Range>) => this.#read(batch),
      get isUsable() {
        return !isSilent();
      },
    };
    const limits = { parallelReads, maxReadBytes, maxGapBytes: MAX_GAP_BYTES };
    this.#queue = new ReadQueue({ ...limits, ...(signal ? { signal } : {}) }, () => reader);
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  read(offsetBytes: number, lengthBytes: number, allocate?: () => Buffer): Promise<Buffer> {
    this.counters.requests += 1;
    if (this.#queue.closed !== undefined) return Promise.reject(this.#queue.closed.reason);
    if (!isRange(offsetBytes, lengthBytes)) return Promise.reject(rangeError(this, offsetBytes, lengthBytes));
    const end = offsetBytes + lengthBytes;
    if (end > this.#lengthBytes) {
      this.#lengthBytes = sizeOf(this.#file.fd);
      if (end > this.#lengthBytes) return Promise.reject(rangeError(this, offsetBytes, lengthBytes));
    }
    return this.#queue.add(offsetBytes, lengthBytes, allocate);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#file.fd < 0) return;
    this.#queue.close(new DiskError('VMMIG_DISK_CLOSED', `${this.path}: closed before the range was read`));
    await Promise.race([this.#queue.idle(), delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
    // To close it would wait for the storage as well.
    if (this.#underWay === 0) await this.#file.close();
  }

  async #read(batch: Batch<Range>): Promise<void> {
    const buffer = this.#idleBuffers.pop() ?? alignedBuffer(this.#bufferBytes, ALIGN_BYTES);
    try {
      const from = alignDown(batch.start);
      const gotBytes = await this.#readInto(buffer, from, alignUp(batch.end) - from, batch.end - from);
      for (const part of batch.parts) {
        const { waiting, start, end } = part;
        if (end - from > gotBytes) {
          waiting.reject(this.#readError(start, end, 'the image has become shorter'));
          continue;
        }
        waiting.target ??= waiting.allocate();
        buffer.copy(waiting.target, start - waiting.start, start - from, end - from);
        filled(part);
      }
    } catch (cause) {
      if (cause instanceof DiskError) throw cause;
      throw this.#readError(batch.start, batch.end, (cause as Error).message, cause);
    } finally {
      // The storage may still write to it.
      if (!this.#isSilent) this.#idleBuffers.push(buffer);
    }
  }

  /** Reads until `neededBytes` are there or the image ends; gives the number of bytes read. */
  async #readInto(buffer: Buffer, offset: number, lengthBytes: number, neededBytes: number): Promise<number> {
    if (!this.direct) await adviseFile(this.#file.fd, offset, lengthBytes, ADVICE_DONTNEED);
    let gotBytes = 0;
    while (gotBytes < neededBytes) {
      // After a short read direct I/O has to continue at an aligned place.
      const resumeAt = alignDown(gotBytes);
      const count = await this.#readOnce(buffer, resumeAt, lengthBytes - resumeAt, offset + resumeAt);
      this.counters.reads += 1;
      this.counters.readBytes += count;
      if (resumeAt + count <= gotBytes) break;
      gotBytes = resumeAt + count;
    }
    if (!this.direct) await adviseFile(this.#file.fd, offset, lengthBytes, ADVICE_DONTNEED);
    return gotBytes;
  }

  #readOnce(buffer: Buffer, bufferOffset: number, lengthBytes: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(this.#fallenSilent()), this.#readTimeoutMs);
      this.#underWay += 1;
      readsUnderWay += 1;
      readFd(this.#file.fd, buffer, bufferOffset, lengthBytes, position, (error, count) => {
        clearTimeout(timer);
        this.#underWay -= 1;
        readsUnderWay -= 1;
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  /** What was asked of it besides will not come either. */
  #fallenSilent(): DiskError {
    const seconds = this.#readTimeoutMs / 1000;
    const error = new DiskError('VMMIG_DISK_SILENT', `${this.path}: the storage has not answered for ${seconds} s`);
    this.#isSilent = true;
    this.#queue.close(error);
    return error;
  }

  #readError(start: number, end: number, reason: string, cause?: unknown): DiskError {
    return new DiskError('VMMIG_DISK_READ', `${this.path}: reading ${start}-${end} failed: ${reason}`, { cause });
  }
}

const alignDown = (bytes: number): number => bytes - (bytes % ALIGN_BYTES);
const alignUp = (bytes: number): number => alignDown(bytes + ALIGN_BYTES - 1);
