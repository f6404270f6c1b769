/** Reads ranges of a guest's disk out of an image of any format, through a qemu-nbd of its own. */
import type { DiskReader, OpenDiskOptions } from '../diskReader.js';
import { type Batch, Elevator, type Waiting } from '../elevator.js';
import { DiskError } from '../errors.js';
import type { DiskImage } from './image.js';
import { type Destination, PendingRead } from './pendingRead.js';
import { type Served, ServedImage } from './servedImage.js';

/** What is read for nobody goes through a socket: less is worth it than on a disk. */
const MAX_GAP_BYTES = 16 * 1024;
const DEFAULT_MAX_READ_BYTES = 1024 * 1024;
/** qemu-nbd takes up to 16 requests of a client at a time. */
const DEFAULT_PARALLEL_READS = 8;
const OPEN_TIMEOUT_MS = 10_000;

interface Request extends Waiting {
  readonly start: number;
  target: Buffer | undefined;
  readonly allocate: () => Buffer;
  missingBytes: number;
  readonly resolve: (bytes: Buffer) => void;
  readonly reject: (error: unknown) => void;
}

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
  readonly #elevator: Elevator<Request>;
  readonly #parallelReads: number;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #lengthBytes = 0;
  #direct = false;
  #inFlight = 0;
  #pumpScheduled = false;
  #isPreparing = false;
  #closed: { readonly reason: unknown } | undefined;

  constructor(image: DiskImage, options: OpenDiskOptions) {
    const { direct = 'auto', runDirectory, signal } = options;
    const { parallelReads = DEFAULT_PARALLEL_READS, maxReadBytes = DEFAULT_MAX_READ_BYTES } = options;
    this.path = image.path;
    this.#image = new ServedImage(image, {
      direct,
      timeoutMs: OPEN_TIMEOUT_MS,
      ...(runDirectory === undefined ? {} : { runDirectory }),
    });
    this.#elevator = new Elevator({ maxReadBytes, maxGapBytes: MAX_GAP_BYTES });
    this.#parallelReads = parallelReads;
    this.#signal = signal;
    this.#onAbort = () => this.#stop(signal?.reason);
    signal?.addEventListener('abort', this.#onAbort, { once: true });
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
    if (this.#closed !== undefined) return Promise.reject(this.#closed.reason);
    const end = offsetBytes + lengthBytes;
    if (!Number.isSafeInteger(offsetBytes) || !Number.isSafeInteger(end) || offsetBytes < 0 || lengthBytes < 0)
      return Promise.reject(this.#rangeError(offsetBytes, lengthBytes));
    const fill = allocate ?? (() => Buffer.allocUnsafeSlow(lengthBytes));
    if (end <= this.#lengthBytes) return this.#enqueue(offsetBytes, lengthBytes, fill);
    return this.#reach(offsetBytes, lengthBytes).then(() => this.#enqueue(offsetBytes, lengthBytes, fill));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop(new DiskError('VMMIG_DISK_CLOSED', `${this.path}: closed before the range was read`));
    this.#signal?.removeEventListener('abort', this.#onAbort);
    await this.#image[Symbol.asyncDispose]();
  }

  /** The disk has not been opened yet, or may have become larger. */
  async #reach(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#image.prepare(true);
    this.#noteExport();
    if (this.#closed !== undefined) throw this.#closed.reason;
    if (offsetBytes + lengthBytes > this.#lengthBytes) throw this.#rangeError(offsetBytes, lengthBytes);
  }

  #enqueue(start: number, lengthBytes: number, allocate: () => Buffer): Promise<Buffer> {
    if (lengthBytes === 0) return Promise.resolve(Buffer.alloc(0));
    return new Promise((resolve, reject) => {
      const range = { start, offset: start, end: start + lengthBytes, missingBytes: lengthBytes };
      this.#elevator.add({ ...range, target: undefined, allocate, resolve, reject });
      this.#schedule();
    });
  }

  #stop(reason: unknown): void {
    this.#closed ??= { reason };
    this.#rejectQueued(this.#closed.reason);
  }

  #rejectQueued(reason: unknown): void {
    for (const request of this.#elevator.drain()) request.reject(reason);
  }

  /** Waits for the end of the caller's turn: what it asks for in one go can then be merged. */
  #schedule(): void {
    if (this.#pumpScheduled || this.#inFlight >= this.#parallelReads) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#isPreparing || this.#elevator.length === 0) return;
    if (!this.#image.isReady) {
      this.#isPreparing = true;
      void this.#prepare();
      return;
    }
    while (this.#inFlight < this.#parallelReads && this.#elevator.length > 0) {
      const served = this.#image.current;
      if (served === undefined) return this.#schedule();
      this.#inFlight += 1;
      void this.#answer(this.#elevator.take()!, served).finally(() => {
        this.#inFlight -= 1;
        this.#pump();
      });
    }
  }

  async #prepare(): Promise<void> {
    try {
      await this.#image.prepare();
      this.#noteExport();
    } catch (error) {
      this.#rejectQueued(this.#closed?.reason ?? error);
    } finally {
      this.#isPreparing = false;
      this.#pump();
    }
  }

  #noteExport(): void {
    const served = this.#image.current;
    if (served === undefined) return;
    this.#lengthBytes = served.server.connection.export.sizeBytes;
    this.#direct = served.server.direct;
  }

  async #answer({ start, end, parts }: Batch<Request>, served: Served): Promise<void> {
    try {
      for (const { waiting } of parts) waiting.target ??= waiting.allocate();
      const destinations = parts.map(({ waiting, start, end }) => {
        return { start, end, target: waiting.target!, targetOffset: start - waiting.start };
      });
      await this.#ask(start, end, destinations, served);
      for (const { waiting, start, end } of parts) {
        waiting.missingBytes -= end - start;
        if (waiting.missingBytes === 0) waiting.resolve(waiting.target!);
      }
    } catch (error) {
      // What one bad sector spoils is told apart by reading each range alone.
      if (parts.length > 1 && served.server.connection.isOpen) {
        for (const { waiting, start, end } of parts)
          await this.#answer({ start, end, parts: [{ waiting, start, end }] }, served);
      } else {
        for (const { waiting } of parts) waiting.reject(this.#closed?.reason ?? error);
      }
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

  #rangeError(offsetBytes: number, lengthBytes: number): DiskError {
    const disk = `${this.path} (${this.#lengthBytes} bytes)`;
    return new DiskError('VMMIG_DISK_RANGE', `${disk} has no range of ${lengthBytes} bytes at ${offsetBytes}`);
  }
}
