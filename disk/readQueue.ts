/**
 * Ranges of a disk that are to be read: in disk order and merged with their neighbours (elevator.ts), so many reads at a
 * time. What all readers have in common; how a batch is read is the reader's.
 */
import type { OpenDiskOptions } from './diskReader.js';
import { type Batch, Elevator, type Waiting } from './elevator.js';
import { DiskError } from './errors.js';

export interface Range extends Waiting {
  readonly start: number;
  /** Allocated when the first part is read, so that a long queue holds no memory. */
  target: Buffer | undefined;
  readonly allocate: () => Buffer;
  missingBytes: number;
  readonly resolve: (bytes: Buffer) => void;
  readonly reject: (error: unknown) => void;
}

export interface BatchReader {
  /** Answers all ranges of a batch, in part as far as they are in part in it. What it rejects with those get that are left. */
  read(batch: Batch<Range>): Promise<void>;
  /** Whether it is any use to read on after a failure. */
  readonly isUsable: boolean;
}

export interface ReadQueueOptions extends Pick<OpenDiskOptions, 'signal'> {
  readonly parallelReads: number;
  readonly maxReadBytes: number;
  readonly maxGapBytes: number;
}

export class ReadQueue {
  readonly #elevator: Elevator<Range>;
  readonly #parallelReads: number;
  readonly #reader: () => BatchReader | null;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #inFlight = 0;
  #pumpScheduled = false;
  #closed: { readonly reason: unknown } | undefined;
  readonly #whenIdle: (() => void)[] = [];

  /** @param reader - gives who reads the next batch; null: nobody for now, and `run` is called when there is somebody */
  constructor({ signal, parallelReads, ...limits }: ReadQueueOptions, reader: () => BatchReader | null) {
    this.#elevator = new Elevator(limits);
    this.#parallelReads = parallelReads;
    this.#reader = reader;
    this.#signal = signal;
    this.#onAbort = () => this.close(signal?.reason);
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Why nothing is read any more. */
  get closed(): { readonly reason: unknown } | undefined {
    return this.#closed;
  }

  /** Of a range that the disk has. */
  add(
    start: number,
    lengthBytes: number,
    allocate: () => Buffer = () => Buffer.allocUnsafeSlow(lengthBytes),
  ): Promise<Buffer> {
    if (lengthBytes === 0) return Promise.resolve(Buffer.alloc(0));
    return new Promise((resolve, reject) => {
      const range = { start, offset: start, end: start + lengthBytes, missingBytes: lengthBytes };
      this.#elevator.add({ ...range, target: undefined, allocate, resolve, reject });
      this.#schedule();
    });
  }

  /** Reads what is queued, as much at a time as is allowed. */
  run(): void {
    while (this.#inFlight < this.#parallelReads && this.#elevator.length > 0) {
      const reader = this.#reader();
      if (reader === null) return;
      this.#inFlight += 1;
      void this.#answer(this.#elevator.take()!, reader).finally(() => {
        this.#inFlight -= 1;
        this.run();
        if (this.#inFlight === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
      });
    }
  }

  /** What has not been begun fails. */
  rejectQueued(reason: unknown): void {
    for (const range of this.#elevator.drain()) range.reject(reason);
  }

  /** Takes nothing any more; the first reason counts. */
  close(reason: unknown): void {
    this.#closed ??= { reason };
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.rejectQueued(this.#closed.reason);
  }

  /** Resolves when no read is under way. */
  async idle(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Waits for the end of the caller's turn: what it asks for in one go can then be merged. */
  #schedule(): void {
    if (this.#pumpScheduled || this.#inFlight >= this.#parallelReads) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.run();
    });
  }

  async #answer(batch: Batch<Range>, reader: BatchReader): Promise<void> {
    try {
      await reader.read(batch);
    } catch (error) {
      // What one bad sector spoils is told apart by reading each range alone.
      if (batch.parts.length > 1 && reader.isUsable)
        for (const part of batch.parts) await this.#answer({ start: part.start, end: part.end, parts: [part] }, reader);
      else for (const { waiting } of batch.parts) waiting.reject(error);
    }
  }
}

/** A part of a range has been read into its target. */
export function filled({ waiting, start, end }: Batch<Range>['parts'][number]): void {
  waiting.missingBytes -= end - start;
  if (waiting.missingBytes === 0) waiting.resolve(waiting.target!);
}

/** Whether these are numbers of bytes at all. */
export function isRange(offsetBytes: number, lengthBytes: number): boolean {
  const end = offsetBytes + lengthBytes;
  return Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(end) && offsetBytes >= 0 && lengthBytes >= 0;
}

export function rangeError(
  { path, lengthBytes: diskBytes }: { readonly path: string; readonly lengthBytes: number },
  offsetBytes: number,
  lengthBytes: number,
): DiskError {
  const disk = `${path} (${diskBytes} bytes)`;
  return new DiskError('VMMIG_DISK_RANGE', `${disk} has no range of ${lengthBytes} bytes at ${offsetBytes}`);
}
