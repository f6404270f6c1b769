/**
 * What the source sends of a guest that still runs, ahead of QEMU's stream and maybe before there is a QEMU: it is held,
 * and what is the guest's in the end is told by digests, after it has stopped.
 */
import { HeldPages } from '../../pager/index.js';
import { pageBytes, pagesOfBlocks, type RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { decodeBatch, recordKind } from '../link/batch.js';
import { parseMemory } from './blocksFrame.js';

export class SentAhead {
  readonly held: HeldPages;
  #pagesOfBlock: readonly number[] = [];

  /** @param heldLimitBytes - what comes beyond it is dropped */
  constructor(digester: RunDigester, heldLimitBytes: number) {
    this.held = new HeldPages(digester, heldLimitBytes);
  }

  /** @throws RelayError when the blocks are known already */
  announce(payload: Buffer): void {
    if (this.#pagesOfBlock.length > 0)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    this.#pagesOfBlock = pagesOfBlocks(parseMemory(payload).blocks);
  }

  /** What the guest has. If others were announced, nothing that came of them will be referred to. */
  useBlocks(pagesOfBlock: readonly number[]): void {
    if (String(pagesOfBlock) !== String(this.#pagesOfBlock)) this.held.clear();
    this.#pagesOfBlock = pagesOfBlock;
  }

  /** Before the switch. @throws RelayError when the payload is no batch of bytes */
  hold(payload: Buffer): void {
    const { records, pages } = decodeBatch(payload, this.#pagesOfBlock);
    let at = 0;
    for (const { kind, block, page, count } of records) {
      if (kind !== recordKind.bytes)
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent ahead what cannot be held');
      this.held.hold(block, page, count, pages, at);
      at += count * pageBytes;
    }
  }
}
