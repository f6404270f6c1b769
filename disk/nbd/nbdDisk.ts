/** Reads ranges of a guest's disk out of an image of any format, through a qemu-nbd of its own. */
import type { DiskReader, OpenDiskOptions } from '../diskReader.js';
import type { Batch } from '../elevator.js';
import { DiskError } from '../errors.js';
import { type BatchReader, filled, isRange, type Range, ReadQueue, rangeError } from '../readQueue.js';
import type { DiskImage } from './image.js';
import { type Destination, PendingRead } from './pendingRead.js';
import { type Served, ServedImage } from './servedImage.js';

/** What is read for nobody goes through a socket: less is worth it than on a disk. */
const MAX_GAP_BYTES = 16 * 1024;
const DEFAULT_MAX_READ_BYTES = 1024 * 1024;
/** qemu-nbd takes up to 16 requests of a client at a time. */
const DEFAULT_PARALLEL_READS = 8;
const OPEN_TIMEOUT_MS = 10_000;

/**
 * Opens an image through qemu-nbd.
 * @throws DiskError VMMIG_DISK_OPEN, VMMIG_DISK_QEMU_NBD, VMMIG_DISK_ENCRYPTED, VMMIG_DISK_SERVER, unless `lazy`
 */
export async function openNbdDisk(image: DiskImage, options: OpenDiskOptions = {}): Promise<DiskReader> {
  options.signal?.throwIfAborted();
  const disk = new NbdDisk(image, options);
  if (options.lazy) return disk;
  try {
    await disk.open();
    return disk;
  } catch (error) {
    await disk[Symbol.asyncDispose]();
    throw error;
  }
}

class NbdDisk implements DiskReader {
  readonly counters = { readBytes: 0, reads: 0, requests: 0 };
  readonly path: string;
  readonly #image: ServedImage;
  readonly #queue: ReadQueue;
  #lengthBytes = 0;
  #direct = false;
  #isPreparing = false;

  constructor(image: DiskImage, options: OpenDiskOptions) {
    const { direct = 'auto', runDirectory, signal } = options;
    const { parallelReads = DEFAULT_PARALLEL_READS, maxReadBytes = DEFAULT_MAX_READ_BYTES } = options;
    this.path = image.path;
    this.#image = new ServedImage(image, {
      direct,
      timeoutMs: OPEN_TIMEOUT_MS,
      ...(runDirectory === undefined ? {} : { runDirectory }),
    });
    const limits = { parallelReads, maxReadBytes, maxGapBytes: MAX_GAP_BYTES };
    this.#queue = new ReadQueue({ ...limits, ...(signal ? { signal } : {}) }, () => this.#reader());
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get direct(): boolean {
    return this.#direct;
  }

  async open(): Promise<void> {
    await this.#image.prepare();
    this.#noteExport();
  }

  doubt(): void {
    this.#image.doubt();
  }

  read(offsetBytes: number, lengthBytes: number, allocate?: () => Buffer): Promise<Buffer> {
    this.counters.requests += 1;
    if (this.#queue.closed !== undefined) return Promise.reject(this.#queue.closed.reason);
    if (!isRange(offsetBytes, lengthBytes)) return Promise.reject(rangeError(this, offsetBytes, lengthBytes));
    const add = () => this.#queue.add(offsetBytes, lengthBytes, allocate);
    return offsetBytes + lengthBytes <= this.#lengthBytes ? add() : this.#reach(offsetBytes, lengthBytes).then(add);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#queue.close(new DiskError('VMMIG_DISK_CLOSED', `${this.path}: closed before the range was read`));
    await this.#image[Symbol.asyncDispose]();
  }

  /** The disk has not been opened yet, or may have become larger. */
  async #reach(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#image.prepare(true);
    this.#noteExport();
    if (this.#queue.closed !== undefined) throw this.#queue.closed.reason;
    if (offsetBytes + lengthBytes > this.#lengthBytes) throw rangeError(this, offsetBytes, lengthBytes);
  }

  /** Null while the image is looked at. */
  #reader(): BatchReader | null {
    if (this.#isPreparing) return null;
    const served = this.#image.isReady ? this.#image.current : undefined;
    if (served === undefined) {
      this.#isPreparing = true;
      void this.#prepare();
      return null;
    }
    return {
      read: (batch) => this.#read(batch, served),
      get isUsable() {
        return served.server.connection.isOpen;
      },
    };
  }

  async #prepare(): Promise<void> {
    try {
      await this.#image.prepare();
      this.#noteExport();
    } catch (error) {
      this.#queue.rejectQueued(this.#queue.closed?.reason ?? error);
    } finally {
      this.#isPreparing = false;
      this.#queue.run();
    }
  }

  #noteExport(): void {
    const served = this.#image.current;
    if (served === undefined) return;
    this.#lengthBytes = served.server.connection.export.sizeBytes;
    this.#direct = served.server.direct;
  }

  async #read({ start, end, parts }: Batch<Range>, served: Served): Promise<void> {
    try {
      for (const { waiting } of parts) waiting.target ??= waiting.allocate();
      const destinations = parts.map(({ waiting, start, end }) => {
        return { start, end, target: waiting.target!, targetOffset: start - waiting.start };
      });
      await this.#ask(start, end, destinations, served);
      for (const part of parts) filled(part);
    } catch (error) {
      throw this.#queue.closed?.reason ?? error;
    }
  }

  /** The server's blocks around a range, in requests as long as it takes. */
  async #ask(start: number, end: number, destinations: readonly Destination[], served: Served): Promise<void> {
    const { connection } = served.server;
    const { minBlockBytes, maxRequestBytes, sizeBytes } = connection.export;
    if (end > sizeBytes) throw new DiskError('VMMIG_DISK_READ', `${this.path}: the disk has become shorter`);
    const blocksEnd = Math.min(Math.ceil(end / minBlockBytes) * minBlockBytes, sizeBytes);
    served.readsUnderWay += 1;
    try {
      for (let at = start - (start % minBlockBytes); at < blocksEnd; at += maxRequestBytes) {
        const read = new PendingRead(at, Math.min(at + maxRequestBytes, blocksEnd), destinations);
        await connection.read(read);
        this.counters.reads += 1;
        this.counters.readBytes += read.end - read.start;
      }
    } finally {
      this.#image.release(served);
    }
  }
}
