/**
 * The migration stream that the destination QEMU is given: the source's bytes where they are not RAM,
 * and RAM sections of this relay's own making, in whatever order the pages become available.
 */
import type { Socket } from 'node:net';
import { StreamEncoder } from '../../stream/encoder.js';
import type { RamBlock } from '../../stream/handler.js';
import { pageBytes } from '../digest.js';
import { RelayError } from '../errors.js';
import { setSendBuffer } from '../socketOptions.js';
import { connectToQemu } from './connectToQemu.js';

const sendBufferBytes = 4 * 1024 * 1024;
const maxBacklogBytes = 2 * 1024 * 1024;
/** A section this long is written out: long enough for a whole restored run, and short enough for the memory to be reused. */
const maxSectionBytes = 256 * 1024;

export class QemuStream {
  readonly #socket: Socket;
  readonly #encoder = new StreamEncoder({ batchBytes: maxSectionBytes + 16 * 1024 });
  #sectionId = 0;
  #blocks: readonly RamBlock[] = [];
  #isInSection = false;
  #isPastRam = false;
  #waiting: () => void = () => {};
  bytesWritten = 0;
  /** Called whenever QEMU has taken some of what was written. */
  onProgress: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Connects to the socket on which the destination QEMU waits for its migration. */
  static async connect(path: string, lost: (error: RelayError) => void): Promise<QemuStream> {
    const socket = await connectToQemu(path);
    setSendBuffer(socket, sendBufferBytes);
    const stream = new QemuStream(socket);
    // Once it has the device state QEMU hangs up by itself, before the stream's end if it likes. Whether it was content
    // with what it got, its monitor tells.
    const hungUp = (cause?: Error) => {
      if (!stream.#isPastRam) lost(new RelayError('VMMIG_RELAY_QEMU', 'the destination QEMU hung up', cause));
    };
    socket.on('error', hungUp);
    socket.on('close', () => {
      stream.#waiting();
      hungUp();
    });
    socket.resume(); // plain migration says nothing; without reading, its end would go unnoticed
    return stream;
  }

  useBlocks(sectionId: number, blocks: readonly RamBlock[]): void {
    this.#sectionId = sectionId;
    this.#blocks = blocks;
  }

  raw(bytes: Buffer): void {
    this.#closeSection();
    this.#encoder.raw(bytes);
    this.#write();
  }

  /** Pages that lie one after the other in `bytes`, from `start` on. */
  pages(block: number, page: number, count: number, bytes: Buffer, start: number): void {
    const target = this.#blocks[block]!;
    for (let at = 0; at < count; at++) {
      this.#openSection();
      this.#encoder.page(target, page + at, bytes, start + at * pageBytes);
      this.#writeIfLong();
    }
  }

  fill(block: number, page: number, count: number, fill: number): void {
    const target = this.#blocks[block]!;
    for (let at = 0; at < count; at++) {
      this.#openSection();
      this.#encoder.zeroPage(target, page + at, fill);
      this.#writeIfLong();
    }
  }

  /** Ends the section that pages were put into, if one is open. */
  flush(): void {
    this.#closeSection();
    this.#write();
  }

  endOfRam(): void {
    this.#isPastRam = true;
    this.#closeSection();
    this.#encoder.sectionContinue('end', this.#sectionId);
    this.#encoder.eos();
    this.#encoder.footer(this.#sectionId);
    this.#write();
  }

  /** What QEMU has not taken yet. */
  get backlogBytes(): number {
    return this.#socket.writableLength;
  }

  /** Waits until QEMU has taken most of what was written, or has gone. */
  async drained(): Promise<void> {
    while (this.backlogBytes > maxBacklogBytes && !this.#socket.destroyed)
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
  }

  /** The stream is complete. QEMU sees the end of file, unless it has seen enough and hung up before. */
  async end(): Promise<void> {
    this.flush();
    if (this.#socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.#socket.once('close', resolve);
      this.#socket.end(resolve);
    });
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #openSection(): void {
    if (this.#isInSection) return;
    this.#encoder.sectionContinue('part', this.#sectionId);
    this.#isInSection = true;
  }

  #closeSection(): void {
    if (!this.#isInSection) return;
    this.#encoder.eos();
    this.#encoder.footer(this.#sectionId);
    this.#isInSection = false;
  }

  #writeIfLong(): void {
    if (this.#encoder.pendingBytes >= maxSectionBytes) this.flush();
  }

  #write(): void {
    if (this.#encoder.pendingBytes === 0) return;
    const bytes = this.#encoder.take();
    this.bytesWritten += bytes.length;
    this.#socket.write(bytes, () => {
      this.#encoder.recycle(bytes);
      this.#waiting();
      this.onProgress?.();
    });
  }
}
