/**
 * The second connection that QEMU expects where libvirt has switched `postcopy-preempt` on (11.3 does, 9.0 does not): QEMU
 * 7.2 reads nothing before it is there. QEMUs send on it what is asked for, past what is not. Here that has its order
 * already, so this one says nothing until the stream has ended. Then QEMUs differ (migration/postcopy-ram.c,
 * `postcopy_ram_incoming_cleanup`): since 8.0 one waits until it has every page that it has asked for, the zero ones, too, of which
 * nothing else can tell it any more; 7.2 waits for the end of this connection.
 *
 *     page = be64 offset | flags  [length  name of the block]  0     (of zeroes; as in a RAM section)
 *     end  = be64 flags
 *
 * A QEMU that expects no such connection does not answer, or hangs up: nobody is told.
 */
import { createConnection, type Socket } from 'node:net';
import { StreamEncoder } from '../../../stream/encoder.js';
import type { BlockPages } from './blockPages.js';

/** A QEMU that has not ended by then, and asks for nothing, waits for this connection to end. */
const patienceMs = 1000;

export class PreemptChannel implements Disposable {
  readonly #socket: Socket;
  readonly #encoder = new StreamEncoder();
  #timer: NodeJS.Timeout | null = null;

  /** To be called when the stream itself is connected: QEMU knows them by their order. */
  constructor(path: string) {
    this.#socket = createConnection({ path });
    this.#socket.on('error', () => {});
    this.#socket.resume();
  }

  /** The stream has ended, and all that is missing is zero. */
  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#encoder.eos();
      this.#socket.write(this.#encoder.take());
    }, patienceMs);
  }

  /** After `end`, QEMU asks for a host page. */
  requested(pages: BlockPages, page: number): void {
    // What was placed is before the stream's end.
    if (pages.placed.has(page)) return;
    pages.setPlaced(page, pages.pagesPerHostPage);
    this.#encoder.nameNextBlock();
    for (let at = page; at < page + pages.pagesPerHostPage; at++) this.#encoder.zeroPage(pages.block, at);
    this.#socket.write(this.#encoder.take());
    this.end();
  }

  [Symbol.dispose](): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#socket.destroy();
  }
}
