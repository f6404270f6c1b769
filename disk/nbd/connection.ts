/**
 * A connection to an NBD server that disk ranges are read over, any number at a time. What is wrong with the server ends
 * it: all reads that are under way fail then, and none is begun any more.
 */
import { connect, type Socket } from 'node:net';
import { DiskError } from '../errors.js';
import { type NbdExport, Negotiation } from './negotiation.js';
import type { PendingRead } from './pendingRead.js';
import { command, REQUEST_BYTES, REQUEST_MAGIC, violation } from './protocol.js';
import { ReplyDecoder } from './replies.js';

export interface NbdConnectOptions {
  /** Of the server's socket. */
  readonly path: string;
  /** Default: the empty name, the server's default export. */
  readonly exportName?: string;
  /** For the negotiation; servers negotiate when they have opened the image. Default 10 s. */
  readonly negotiationTimeoutMs?: number;
  /** How long a read may take before the server is given up. Default 60 s: storage that fails over takes a while. */
  readonly readTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

const RECEIVE_BYTES = 256 * 1024;
const CHECK_INTERVAL_MS = 500;

interface Waiting {
  readonly read: PendingRead;
  readonly begunAtMs: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class NbdConnection {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #readTimeoutMs: number;
  #negotiation: Negotiation | undefined;
  #decoder: ReplyDecoder | undefined;
  #export: NbdExport | undefined;
  #nextCookie = 0;
  #timer: NodeJS.Timeout | undefined;
  #failure: { readonly reason: unknown } | undefined;
  /** Settles when the server's socket is there. */
  readonly #connected: Promise<void>;
  readonly #negotiated: Promise<void>;
  #settle!: { readonly resolve: () => void; readonly reject: (error: unknown) => void };

  constructor({ path, exportName = '', readTimeoutMs = 60_000 }: NbdConnectOptions) {
    this.#readTimeoutMs = readTimeoutMs;
    this.#negotiation = new Negotiation(exportName);
    this.#negotiated = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#negotiated.catch(() => {});
    this.#socket = connect({
      path,
      onread: {
        buffer: Buffer.alloc(RECEIVE_BYTES),
        callback: (lengthBytes, buffer) => {
          this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, lengthBytes));
          return true;
        },
      },
    });
    this.#connected = new Promise((resolve) => this.#socket.once('connect', resolve));
    this.#socket.on('error', (error) => this.#fail(lost(error.message, error)));
    this.#socket.on('close', () => this.#fail(lost('it hung up')));
    this.#socket.on('end', () => this.#fail(lost('it hung up')));
  }

  /** Resolves when the server's socket has taken the connection, be there anyone yet who answers or not. */
  async connected(): Promise<void> {
    await Promise.race([this.#connected, this.#negotiated]);
  }

  /** @throws DiskError VMMIG_DISK_SERVER, VMMIG_DISK_OPEN; the reason of the aborted signal */
  async negotiated({ negotiationTimeoutMs = 10_000, signal }: Omit<NbdConnectOptions, 'path'>): Promise<void> {
    const tooLate = lost(`it did not negotiate within ${negotiationTimeoutMs} ms`);
    const timer = setTimeout(() => this.#fail(tooLate), negotiationTimeoutMs);
    const onAbort = () => this.#fail(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    try {
      await this.#negotiated;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  get export(): NbdExport {
    return this.#export!;
  }

  /** Whether reads can still be begun. */
  get isOpen(): boolean {
    return this.#export !== undefined && this.#failure === undefined;
  }

  get readsUnderWay(): number {
    return this.#waiting.size;
  }

  /**
   * Resolves when the bytes are in place. The range has to be within the disk and to begin and end at block boundaries.
   * @throws DiskError VMMIG_DISK_READ when the server cannot read it, VMMIG_DISK_SERVER when the connection has ended
   */
  read(read: PendingRead): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.reason);
    const cookie = this.#nextCookie;
    // Long before it comes round to a cookie again, that read has timed out.
    this.#nextCookie = (this.#nextCookie + 1) >>> 0;
    const result = new Promise<void>((resolve, reject) => {
      this.#waiting.set(cookie, { read, begunAtMs: performance.now(), resolve, reject });
    });
    this.#socket.write(request(command.read, cookie, read.start, read.end - read.start));
    this.#timer ??= setInterval(() => this.#checkTime(), CHECK_INTERVAL_MS).unref();
    return result;
  }

  /** Says good-bye to the server; reads that are under way fail. */
  close(reason: unknown = new DiskError('VMMIG_DISK_CLOSED', 'the NBD connection was closed')): void {
    if (this.isOpen) this.#socket.write(request(command.disconnect, 0, 0, 0));
    this.#fail(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    try {
      let at = 0;
      if (this.#negotiation !== undefined) {
        at = this.#negotiation.feed(chunk);
        const output = this.#negotiation.takeOutput();
        if (output.length > 0) this.#socket.write(output);
        const { result } = this.#negotiation;
        if (result === undefined) return;
        this.#begin(result);
      }
      this.#decoder!.feed(chunk.subarray(at));
    } catch (error) {
      this.#fail(error instanceof DiskError ? error : violation(String(error)));
    }
  }

  #begin(negotiated: NbdExport): void {
    this.#negotiation = undefined;
    this.#export = negotiated;
    const reads = {
      get: (cookie: number) => this.#waiting.get(cookie)?.read,
      finish: (cookie: number, { failure }: PendingRead) => {
        const waiting = this.#waiting.get(cookie)!;
        this.#waiting.delete(cookie);
        if (failure === undefined) waiting.resolve();
        else waiting.reject(failure);
        if (this.#waiting.size === 0) this.#stopTimer();
      },
    };
    this.#decoder = new ReplyDecoder(reads, negotiated.structuredReplies);
    this.#settle.resolve();
  }

  /** The oldest read decides: a server that trickles is no better than a silent one. */
  #checkTime(): void {
    const [oldest] = this.#waiting.values();
    if (oldest === undefined || performance.now() - oldest.begunAtMs < this.#readTimeoutMs) return;
    this.#fail(lost(`it did not answer a read within ${this.#readTimeoutMs} ms`));
  }

  #stopTimer(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #fail(reason: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { reason };
    this.#stopTimer();
    // What has been written is in the kernel's buffer, and still arrives.
    this.#socket.destroy();
    this.#settle.reject(reason);
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
  }
}

function request(type: number, cookie: number, offset: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(type, 6);
  bytes.writeUInt32BE(cookie, 12);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(lengthBytes, 24);
  return bytes;
}

function lost(why: string, cause?: unknown): DiskError {
  return new DiskError('VMMIG_DISK_SERVER', `the NBD server is of no use: ${why}`, { cause });
}
