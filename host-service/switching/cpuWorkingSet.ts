/**
 * The pages that a guest's processors touch before anything else when they go on: what their registers point to, the code
 * of a few interrupts, and the page tables by which all of it is found. Each would cost the guest a round trip, one after
 * the other. Guesses throughout: the guest runs while this looks at its memory.
 *
 * x86-64 page tables: Intel SDM volume 3, 4.5; interrupt gates: 6.14.1.
 */
import { type CpuState, findGpaRange, type GpaRange, type RamStretch } from '../../hypervisor/index.js';
import type { GuestMemory } from '../../relay/source/filePages.js';

const pageBytes = 4096;
const entryBytes = 8;
const present = 1n;
const large = 1n << 7n;
const addressMask = 0xf_ffff_ffff_f000n;
/** Page fault, and the timer's and the other processors' interrupts in Linux. */
const vectors = [14, 0xec, 0xfb, 0xfd];
const gateBytes = 16;

export function cpuWorkingSet(
  cpus: readonly CpuState[],
  gpaMap: readonly GpaRange[],
  memory: GuestMemory,
): RamStretch[] {
  const reader = new Reader(gpaMap, memory);
  for (const { pageTable, levels, interrupts, addresses } of cpus) {
    for (const address of addresses) reader.walk(pageTable, levels, address);
    for (const vector of vectors) {
      const gate = reader.walk(pageTable, levels, interrupts + BigInt(vector * gateBytes));
      const low = gate === null ? null : reader.entry(gate);
      const high = gate === null ? null : reader.entry(gate + entryBytes);
      if (low === null || high === null) continue;
      const handler = (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | ((high & 0xffff_ffffn) << 32n);
      reader.walk(pageTable, levels, handler);
    }
  }
  return reader.touched();
}

class Reader {
  readonly #pages = new Set<number>();
  readonly #buffer = Buffer.alloc(entryBytes);

  constructor(
    private readonly gpaMap: readonly GpaRange[],
    private readonly memory: GuestMemory,
  ) {}

  /** Goes from table to table. @returns the guest physical address, or null where there is nothing */
  walk(pageTable: number, levels: number, address: bigint): number | null {
    let table = pageTable;
    for (let level = levels; level > 0; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const entry = this.entry(table + Number((address >> shift) & 0x1ffn) * entryBytes);
      if (entry === null || (entry & present) === 0n) return null;
      const below = (1n << shift) - 1n;
      if (level === 1 || ((level === 2 || level === 3) && (entry & large) !== 0n)) {
        const found = Number((entry & addressMask & ~below) | (address & below));
        this.#touch(found);
        return found;
      }
      table = Number(entry & addressMask);
    }
    return null;
  }

  /** Eight bytes at a guest physical address. */
  entry(gpa: number): bigint | null {
    const range = findGpaRange(this.gpaMap, gpa);
    const place = this.memory.blocks.find(({ name }) => name === range?.block)?.place;
    if (range === undefined || !place || gpa - range.gpaStart + entryBytes > range.lengthBytes) return null;
    place.file.read(place.fileOffset + range.blockOffset + gpa - range.gpaStart, entryBytes, this.#buffer);
    this.#touch(gpa);
    return this.#buffer.readBigUInt64LE();
  }

  touched(): RamStretch[] {
    return [...this.#pages].flatMap((gpa) => {
      const range = findGpaRange(this.gpaMap, gpa);
      if (range === undefined) return [];
      return [{ block: range.block, offset: range.blockOffset + gpa - range.gpaStart, lengthBytes: pageBytes }];
    });
  }

  #touch(gpa: number): void {
    this.#pages.add(gpa - (gpa % pageBytes));
  }
}
