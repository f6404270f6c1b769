/**
 * Keeps an image served, and fresh: qemu-nbd reads an image's metadata when it opens it and remembers them, also those of an
 * image that another QEMU writes meanwhile. Clusters that are allocated later read as what was there before, or as
 * zeroes. So it is opened anew when the image has grown, or when what was read turned out to be out of date.
 */
import { performance } from 'node:perf_hooks';
import { DiskError } from '../errors.js';
import type { DiskImage } from './image.js';
import { changeBetween, type ImageStamp, stampOf } from './imageChanges.js';
import { QemuNbd, type QemuNbdOptions } from './qemuNbd.js';

/** How often the image is looked at while it is being read. */
const LOOK_INTERVAL_MS = 200;
/** How long it stays open at least. */
const MIN_AGE_MS = 500;
/** Opening is to take no more than this share of the time. */
const MAX_OPENING_SHARE = 0.1;
/** After it could not be opened, or its server ended. */
const RETRY_AFTER_MS = 1000;

/** One qemu-nbd, and what the image was like when it opened it. */
export interface Served {
  readonly server: QemuNbd;
  readonly stamp: ImageStamp;
  readsUnderWay: number;
  isRetired: boolean;
}

export class ServedImage implements AsyncDisposable {
  readonly #image: DiskImage;
  readonly #options: Omit<QemuNbdOptions, 'signal'>;
  readonly #stop = new AbortController();
  readonly #ending = new Set<Promise<void>>();
  #current: Served | undefined;
  #opening: Promise<void> | undefined;
  #begunAtMs = Number.NEGATIVE_INFINITY;
  #openingMs = 0;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #isDoubted = false;
  #failure: { readonly error: unknown; readonly atMs: number } | undefined;

  constructor(image: DiskImage, options: Omit<QemuNbdOptions, 'signal'>) {
    this.#image = image;
    this.#options = options;
  }

  /** What reads go to; undefined when it is not open (any more). */
  get current(): Served | undefined {
    return this.#current?.server.connection.isOpen ? this.#current : undefined;
  }

  /** Whether reads can be begun without a look at the image. */
  get isReady(): boolean {
    return this.current !== undefined && performance.now() - this.#lookedAtMs < LOOK_INTERVAL_MS;
  }

  /** What was read lately was out of date. */
  doubt(): void {
    this.#isDoubted = true;
  }

  /**
   * Opens the image where it is not open, and anew where that is called for.
   * @param insist - anew also when it may only have been written
   * @throws DiskError, the last opening's for a while when that has failed
   */
  async prepare(insist = false): Promise<void> {
    if (this.current === undefined) return await this.#open();
    const { stamp } = this.#current!;
    this.#lookedAtMs = performance.now();
    const change = changeBetween(this.#image, stamp, await stampOf(this.#image));
    const minAgeMs = Math.max(MIN_AGE_MS, this.#openingMs / MAX_OPENING_SHARE);
    if (change === 'none' || performance.now() - this.#begunAtMs < minAgeMs) return;
    // An image that is in the middle of a change may not open; the one that is open will do.
    const opening = () => this.#open().catch(() => {});
    if (insist || change === 'grown') await opening();
    else if (this.#isDoubted) void opening();
  }

  /** It was open, and its server is of no use any more. */
  get #isLost(): boolean {
    return this.#current !== undefined && this.current === undefined;
  }

  /** To be called with each read that has ended. */
  release(served: Served): void {
    served.readsUnderWay -= 1;
    if (served.isRetired && served.readsUnderWay === 0) this.#end(served);
  }

  /** Reads that are under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DiskError('VMMIG_DISK_CLOSED', `${this.#image.path}: closed while it was being opened`));
    await this.#opening?.catch(() => {});
    if (this.#current !== undefined) this.#end(this.#current);
    this.#current = undefined;
    while (this.#ending.size > 0) await Promise.all(this.#ending);
  }

  /** Whoever asks while it is being opened gets that one. */
  #open(): Promise<void> {
    const now = performance.now();
    if (this.#failure !== undefined && now - this.#failure.atMs < RETRY_AFTER_MS)
      return Promise.reject(this.#failure.error);
    // What makes it end again and again is not worth a process for each read.
    if (this.#opening === undefined && this.#isLost && now - this.#begunAtMs < RETRY_AFTER_MS)
      return Promise.reject(new DiskError('VMMIG_DISK_SERVER', `${this.#image.path}: qemu-nbd has just ended`));
    this.#opening ??= this.#replace().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #replace(): Promise<void> {
    this.#begunAtMs = performance.now();
    this.#isDoubted = false;
    try {
      const stamp = await stampOf(this.#image);
      const server = await QemuNbd.start(this.#image, { ...this.#options, signal: this.#stop.signal });
      const previous = this.#current;
      this.#current = { server, stamp, readsUnderWay: 0, isRetired: false };
      this.#failure = undefined;
      if (previous !== undefined) {
        previous.isRetired = true;
        if (previous.readsUnderWay === 0) this.#end(previous);
      }
    } catch (error) {
      this.#failure = { error, atMs: performance.now() };
      throw error;
    } finally {
      this.#openingMs = performance.now() - this.#begunAtMs;
      this.#lookedAtMs = performance.now();
    }
  }

  #end({ server }: Served): void {
    const ending = server[Symbol.asyncDispose]().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}
