/** What QEMU says back, checked against what it was told: a block or a page that does not exist ends the stream. */
import { ReturnPathDecoder, type ReturnPathMessage } from '../../../stream/returnPath.js';
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import type { BlockPages } from './blockPages.js';

export interface ReturnPathHandler {
  /** QEMU cannot go on without the host page that begins here. */
  requested(pages: BlockPages, page: number): void;
  pong(value: number): void;
  /** QEMU is done, well or not. */
  shut(ok: boolean): void;
  /** QEMU goes on, and has told which pages it has: those count as placed. */
  resumed(): void;
}

export class ReturnPath {
  readonly #decoder: ReturnPathDecoder;
  readonly #blocks: ReadonlyMap<string, BlockPages>;
  readonly #handler: ReturnPathHandler;
  /** Blocks of which QEMU has been asked what it has. */
  readonly #untold: Set<BlockPages>;

  constructor(blocks: readonly BlockPages[], isResumed: boolean, handler: ReturnPathHandler) {
    this.#untold = new Set(isResumed ? blocks : []);
    this.#blocks = new Map(blocks.map((pages) => [pages.block.name, pages]));
    this.#handler = handler;
    this.#decoder = new ReturnPathDecoder({ bitmapBytes: Math.max(0, ...blocks.map(bitmapBytes)) });
  }

  /** @throws RelayError when no QEMU says that, and whatever the handler throws */
  feed(chunk: Buffer): void {
    for (const message of this.#decode(chunk)) this.#take(message);
  }

  #decode(chunk: Buffer): ReturnPathMessage[] {
    try {
      return this.#decoder.feed(chunk);
    } catch (cause) {
      throw unexpected('said what no QEMU says', cause);
    }
  }

  #take(message: ReturnPathMessage): void {
    switch (message.type) {
      case 'request-pages': {
        const pages = this.#block(message.block);
        const { offsetBytes, lengthBytes } = message;
        const hostPageBytes = pages.pagesPerHostPage * pageBytes;
        if (offsetBytes % hostPageBytes !== 0 || lengthBytes !== hostPageBytes)
          throw unexpected(`asked for ${lengthBytes} bytes at ${offsetBytes} of ${message.block}`);
        if (offsetBytes >= pages.block.lengthBytes) throw unexpected(`asked for memory beyond ${message.block}`);
        this.#handler.requested(pages, offsetBytes / pageBytes);
        return;
      }
      case 'received-bitmap': {
        const pages = this.#block(message.block);
        if (message.bitmap.length !== bitmapBytes(pages))
          throw unexpected(`sent ${message.bitmap.length} bytes of bitmap for ${message.block}`);
        if (!this.#untold.delete(pages)) throw unexpected('sent a bitmap that nobody wanted');
        pages.placed.setFrom(message.bitmap);
        return;
      }
      case 'pong':
        this.#handler.pong(message.value);
        return;
      case 'shut':
        this.#handler.shut(message.value === 0);
        return;
      case 'resume-ack':
        if (this.#untold.size > 0) throw unexpected('goes on without having told what it has');
        this.#handler.resumed();
        return;
      case 'switchover-ack':
        return;
    }
  }

  #block(name: string): BlockPages {
    const pages = this.#blocks.get(name);
    if (pages === undefined)
      throw unexpected(`spoke of a RAM block ${JSON.stringify(name)}, which it was never told of`);
    return pages;
  }
}

/** Bits in words of 64. */
function bitmapBytes(pages: BlockPages): number {
  return Math.ceil(pages.pages / 64) * 8;
}

/** QEMU did what it should not have done. */
export function unexpected(what: string, cause?: unknown): RelayError {
  return new RelayError('VMMIG_RELAY_QEMU', `the destination QEMU ${what}`, cause);
}
