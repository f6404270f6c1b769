/** Stretches of the guest's memory as QEMU names them, and as pages. */
import { pageBytes } from '../digest.js';

/** In bytes of a RAM block. */
export interface MemoryStretch {
  readonly block: string;
  readonly offset: number;
  readonly lengthBytes: number;
}

export interface PageRange {
  /** By its place among the guest's blocks. */
  readonly block: number;
  readonly page: number;
  readonly count: number;
}

/** The pages of stretches, each once and in order; those of other blocks are left out. */
export function pagesOf(
  stretches: readonly MemoryStretch[],
  blocks: readonly { readonly name: string }[],
): PageRange[] {
  const places = new Map(blocks.map(({ name }, at) => [name, at]));
  const ranges = stretches
    .flatMap(({ block, offset, lengthBytes }) => {
      const place = places.get(block);
      if (place === undefined) return [];
      return [
        { block: place, page: Math.floor(offset / pageBytes), end: Math.ceil((offset + lengthBytes) / pageBytes) },
      ];
    })
    .toSorted((left, right) => left.block - right.block || left.page - right.page);
  const merged: { block: number; page: number; end: number }[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && last.block === range.block && range.page <= last.end)
      last.end = Math.max(last.end, range.end);
    else merged.push({ ...range });
  }
  return merged.map(({ block, page, end }) => ({ block, page, count: end - page }));
}
