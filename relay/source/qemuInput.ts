/** The socket into which the source QEMU migrates (`migrate unix:…`): one connection, mode 0600, gone at the end. */
import { rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { RelayError } from '../errors.js';
import { widenPeerSocket } from './peerSocket.js';
import { readIntoOneBuffer } from './reusedBuffer.js';

export interface QemuInputHandlers {
  /** @param bytes - valid only during the call. @returns whether more may come at once; else `resume` is called */
  bytes(bytes: Buffer): boolean;
  end(): void;
  /** Not after `end`. */
  lost(error: RelayError): void;
}

export class QemuInput implements AsyncDisposable {
  readonly #path: string;
  readonly #handlers: QemuInputHandlers;
  readonly #server: Server;
  readonly #readBytes: number | undefined;
  #widen: () => void = () => {};
  #socket: Socket | null = null;
  #accepted: Socket | null = null;
  #hasBegun = false;
  #isPaused = false;
  #hasEnded = false;
  #isClosed = false;

  private constructor(path: string, handlers: QemuInputHandlers, readBytes?: number) {
    this.#path = path;
    this.#readBytes = readBytes;
    this.#handlers = handlers;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /**
   * QEMU may connect from now on; nothing is read before `begin`.
   *
   * @param readBytes - at a time at most, where that matters
   * @throws RelayError VMMIG_RELAY_QEMU
   */
  static async listen(path: string, handlers: QemuInputHandlers, readBytes?: number): Promise<QemuInput> {
    const input = new QemuInput(path, handlers, readBytes);
    const previousMask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        input.#server.once('error', reject);
        input.#server.listen(path, resolve);
      });
    } catch (cause) {
      throw new RelayError('VMMIG_RELAY_QEMU', `could not listen for QEMU on ${path}`, cause);
    } finally {
      process.umask(previousMask);
    }
    return input;
  }

  /** Reads what QEMU sends. */
  begin(): void {
    this.#hasBegun = true;
    if (this.#accepted !== null) this.#read(this.#accepted);
  }

  /** Lets QEMU write so much ahead of what is read, where that can be had. */
  widen(qemuPid: number, lengthBytes: number): void {
    this.#widen = () => widenPeerSocket(qemuPid, this.#path, lengthBytes);
    if (this.#accepted !== null) this.#widen();
  }

  /** Lets QEMU go on. */
  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket?.resume();
  }

  /** Tells QEMU what its destination would. */
  answer(bytes: Buffer): void {
    this.#socket?.write(bytes);
  }

  /** Hangs up: QEMU's migration fails, and its guest goes on. */
  close(): void {
    this.#isClosed = true;
    this.#accepted?.destroy();
    this.#socket?.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#path, { force: true });
  }

  #accept(accepted: Socket): void {
    if (this.#accepted !== null || this.#isClosed) return void accepted.destroy();
    this.#server.close();
    this.#accepted = accepted;
    this.#widen();
    if (this.#hasBegun) this.#read(accepted);
  }

  #read(accepted: Socket): void {
    const take = (bytes: Buffer) => {
      this.#isPaused = !this.#handlers.bytes(bytes);
      return !this.#isPaused;
    };
    const socket = readIntoOneBuffer(accepted, take, this.#readBytes);
    this.#socket = socket;
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#handlers.end();
    });
    socket.on('error', (cause) => this.#lost("QEMU's migration socket broke", cause));
    socket.on('close', () => this.#lost('QEMU closed its migration socket'));
  }

  #lost(message: string, cause?: unknown): void {
    if (!this.#hasEnded) this.#handlers.lost(new RelayError('VMMIG_RELAY_QEMU', message, cause));
  }
}
