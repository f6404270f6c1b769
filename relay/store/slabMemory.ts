/**
 * Memory for slabs, many from one allocation: what matters to V8's collector is how much is allocated, whether it is
 * touched or not, and each slab by itself had it run again every few tens of MiB.
 */
import { allocateInHugePages } from '../hugePages.js';

export const slabsPerChunk = 64;

export class SlabMemory {
  /** Those with a free slab, each with its free slabs. */
  readonly #chunks = new Map<ArrayBufferLike, Buffer[]>();
  /** All of whose slabs are taken. */
  readonly #exhausted = new Map<ArrayBufferLike, Buffer[]>();

  constructor(readonly slabBytes: number) {}

  acquire(): Buffer {
    for (const [memory, free] of this.#chunks) {
      if (free.length === 1) {
        this.#chunks.delete(memory);
        this.#exhausted.set(memory, free);
      }
      return free.pop()!;
    }
    const chunk = allocateInHugePages(slabsPerChunk * this.slabBytes);
    const free = Array.from({ length: slabsPerChunk }, (_, index) =>
      chunk.subarray((slabsPerChunk - 1 - index) * this.slabBytes).subarray(0, this.slabBytes),
    );
    this.#chunks.set(chunk.buffer, free);
    return free.pop()!;
  }

  /** Takes back a slab that `acquire` gave. A chunk that is free as a whole is given up, but for the last one. */
  release(slab: Buffer): void {
    const memory = slab.buffer;
    const free = this.#chunks.get(memory) ?? this.#exhausted.get(memory)!;
    free.push(slab);
    if (this.#exhausted.delete(memory)) this.#chunks.set(memory, free);
    if (free.length === slabsPerChunk && this.#chunks.size > 1) this.#chunks.delete(memory);
  }
}
