/** What the destination is sent ahead of QEMU's stream is told by: the blocks that this will have. JSON. */
import type { BlockSize } from '../digest.js';

export interface MemoryFrame {
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
}

export function encodeMemory(blocks: readonly BlockSize[]): Buffer {
  const frame: MemoryFrame = { blocks: blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes })) };
  return Buffer.from(JSON.stringify(frame));
}
