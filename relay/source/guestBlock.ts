/** The guest's RAM blocks, and where they can be read beside QEMU's stream. */
import type { FileBlock, MemorySource } from '../../pager/index.js';
import type { BlockSize } from '../digest.js';

export interface GuestBlock<Source extends MemorySource = MemorySource> extends BlockSize {
  /** Null for what comes through QEMU's stream only. */
  readonly place: { readonly file: Source; readonly fileOffset: number } | null;
}

/** Those that can be read, by their places among all. */
export function readableBlocks(blocks: readonly GuestBlock[]): FileBlock[] {
  return blocks.flatMap(({ lengthBytes, place }, block) => (place === null ? [] : [{ block, lengthBytes, ...place }]));
}
