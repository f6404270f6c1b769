import { describe, expect, it } from 'vitest';
import { SlabMemory, slabsPerChunk } from '../../../relay/store/slabMemory.js';

const slabBytes = 4096;

function acquire(memory: SlabMemory, count: number): Buffer[] {
  return Array.from({ length: count }, () => memory.acquire());
}

describe('SlabMemory', () => {
  it('gives slabs that do not overlap, many from one allocation', () => {
    const slabs = acquire(new SlabMemory(slabBytes), slabsPerChunk + 1);
    for (const [index, slab] of slabs.entries()) slab.fill(index);
    for (const [index, slab] of slabs.entries()) expect(slab).toEqual(Buffer.alloc(slabBytes, index));
    expect(new Set(slabs.map(({ buffer }) => buffer)).size).toBe(2);
  });

  it('gives what it got back before it allocates', () => {
    const memory = new SlabMemory(slabBytes);
    const slabs = acquire(memory, slabsPerChunk);
    memory.release(slabs[3]!);
    expect(memory.acquire()).toBe(slabs[3]);
    expect(memory.acquire().buffer).not.toBe(slabs[0]!.buffer);
  });

  it('gives up what is free as a whole, but for the last', () => {
    const memory = new SlabMemory(slabBytes);
    const first = acquire(memory, slabsPerChunk);
    const second = acquire(memory, slabsPerChunk);
    for (const slab of [...first, ...second]) memory.release(slab);
    expect(new Set(acquire(memory, slabsPerChunk).map(({ buffer }) => buffer)).size).toBe(1);
    const [other] = acquire(memory, 1);
    expect([first[0]!.buffer, second[0]!.buffer].filter((buffer) => buffer === other!.buffer)).toEqual([]);
  });
});
