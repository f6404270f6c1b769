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

/** The pages of stretches, each once, in their order; those of other blocks are left out. */
export function pagesOf(
  stretches: readonly MemoryStretch[],
  blocks: readonly { readonly name: string }[],
): PageRange[] {
  const places = new Map(blocks.map(({ name }, block) => [name, { block, known: new Set<number>() }]));
  const found: { block: number; page: number; count: number }[] = [];
  for (const { block: name, offset, lengthBytes } of stretches) {
    const place = places.get(name);
    if (place === undefined) continue;
    const { block, known } = place;
    const end = Math.ceil((offset + lengthBytes) / pageBytes);
    for (let page = Math.floor(offset / pageBytes); page < end; page++) {
      if (known.has(page)) continue;
      known.add(page);
      const last = found.at(-1);
      if (last?.block === block && last.page + last.count === page) last.count++;
      else found.push({ block, page, count: 1 });
    }
  }
  return found;
}
