/**
 * The memory of the store: pages in slots, slots in slabs of 1 MiB. A slot keeps its number for life, also
 * when its slab is put away, so nobody has to be told where a page is now.
 *
 *   open (being filled) -> closed (full; the oldest is the coldest) -> packed (compressed) -> spilled
 *                            ^    | some of its slots are free again       | all of its slots are free
 *                            └ reusable                                    └> gone
 */
import { pageBytes } from '../digest.js';
import { PackedSlab, UnitReader, unitPages } from './packedSlab.js';
import { SlabMemory } from './slabMemory.js';
import type { SpillFile } from './spillFile.js';

const slotsPerSlab = 256;
const slabBytes = slotsPerSlab * pageBytes;
/** Less is not worth putting anything away for. */
export const minLimitBytes = 4 * slabBytes;
/** As many free slots make a closed slab worth filling again. */
const reusableFrom = 16;
/** Slabs compressed for each new one: more than one, so that it catches up; few, so that capture goes on. */
const packsPerSlab = 2;
/** Packing must gain something, or the slab is better left as it is. */
const worthwhile = 7 / 8;
/** Full ends when so much of the limit is in use. More than `reusableFrom` of each slab is free then. */
const resumeShare = 7 / 8;

interface Slab {
  readonly number: number;
  buffer: Buffer | null;
  packed: PackedSlab | null;
  /** A stack of free slots. */
  readonly free: Uint8Array;
  freeSlots: number;
}

export class Slabs {
  /** Where `locate` has found its page. */
  source: Buffer = Buffer.alloc(0);
  readonly #slabs: (Slab | undefined)[] = [];
  readonly #freeNumbers: number[] = [];
  readonly #memory = new SlabMemory(slabBytes);
  readonly #reader = new UnitReader();
  #open: Slab | null = null;
  // oldest first
  readonly #closed = new Set<Slab>();
  readonly #reusable = new Set<Slab>();
  readonly #packed = new Set<Slab>();
  /** Those that compression does not make smaller. */
  readonly #stiff = new Set<Slab>();
  #residentSlabs = 0;
  #residentSlots = 0;
  #compressedBytes = 0;
  #spilledBytes = 0;
  #isFull = false;

  constructor(
    private readonly limitBytes: number,
    private readonly spill: SpillFile | null,
  ) {}

  /** Memory in use. */
  get heldBytes(): number {
    return this.#residentSlabs * slabBytes + this.#compressedBytes;
  }

  /** The part of `heldBytes` that is compressed pages. */
  get compressedBytes(): number {
    return this.#compressedBytes;
  }

  get spilledBytes(): number {
    return this.#spilledBytes;
  }

  /** No room is left; stays so until an eighth of the limit is free. */
  get isFull(): boolean {
    if (this.#isFull)
      this.#isFull = this.#residentSlots * pageBytes + this.#compressedBytes > this.limitBytes * resumeShare;
    return this.#isFull;
  }

  /**
   * Keeps a copy of a page, also when full.
   *
   * @returns its slot
   * @throws StoreError when the spill file fails; nothing has changed then
   */
  put(source: Buffer, start: number): number {
    const slab = this.#open ?? this.#openSlab();
    const index = slab.free[--slab.freeSlots]!;
    source.copy(slab.buffer!, index * pageBytes, start, start + pageBytes);
    this.#residentSlots++;
    if (slab.freeSlots === 0) {
      this.#closed.add(slab);
      this.#open = null;
    }
    return slab.number * slotsPerSlab + index;
  }

  free(slot: number): void {
    const slab = this.#slabs[Math.floor(slot / slotsPerSlab)]!;
    const index = slot % slotsPerSlab;
    slab.free[slab.freeSlots++] = index;
    if (slab.packed !== null) {
      this.#uncount(slab.packed);
      slab.packed.free(index);
      this.#count(slab.packed);
    } else {
      this.#residentSlots--;
      if (slab.freeSlots === reusableFrom && slab !== this.#open) this.#makeReusable(slab);
    }
    if (slab.freeSlots === slotsPerSlab) this.#remove(slab);
  }

  /**
   * Finds a page: it is in `source` then, until the next call of anything.
   *
   * @returns where it starts there
   * @throws StoreError when it does not come back from where it was put away
   */
  locate(slot: number): number {
    const slab = this.#slabs[Math.floor(slot / slotsPerSlab)]!;
    const index = slot % slotsPerSlab;
    this.source = slab.buffer ?? slab.packed!.unpack(index, this.#reader);
    return (slab.buffer === null ? index % unitPages : index) * pageBytes;
  }

  #openSlab(): Slab {
    for (const slab of this.#reusable) {
      this.#reusable.delete(slab);
      this.#open = slab;
      return slab;
    }
    this.#makeRoom();
    const number = this.#freeNumbers.pop() ?? this.#slabs.length;
    // The first slots are taken first: pages that come together stay together.
    const free = Uint8Array.from({ length: slotsPerSlab }, (_, index) => slotsPerSlab - 1 - index);
    const slab = { number, buffer: this.#memory.acquire(), packed: null, free, freeSlots: slotsPerSlab };
    this.#slabs[number] = slab;
    this.#residentSlabs++;
    this.#open = slab;
    return slab;
  }

  /** Puts the coldest away, as far as is needed for another slab. */
  #makeRoom(): void {
    const afterBytes = () => this.heldBytes + slabBytes;
    // An eighth stays as it is while there is room: what has just come is what is rewritten next.
    const isWarm = () => this.#closed.size * slabBytes <= this.limitBytes / 8;
    for (let packs = 0; packs < packsPerSlab && afterBytes() > this.limitBytes / 2 && !isWarm(); packs++)
      if (!this.#compressColdest()) break;
    while (afterBytes() > this.limitBytes)
      if ((isWarm() || !this.#compressColdest()) && !this.#spillColdest() && !this.#compressColdest()) break;
    if (afterBytes() > this.limitBytes) this.#isFull = true;
  }

  /** @returns false when there is nothing left to compress */
  #compressColdest(): boolean {
    for (const slab of this.#closed) {
      this.#closed.delete(slab);
      const packed = this.#pack(slab);
      if (packed.memoryBytes > (slotsPerSlab - slab.freeSlots) * pageBytes * worthwhile) this.#stiff.add(slab);
      else this.#replace(slab, packed);
      return true;
    }
    return false;
  }

  /** @returns false when there is nothing to spill, or no file for it */
  #spillColdest(): boolean {
    if (this.spill === null) return false;
    for (const slab of this.#stiff) {
      this.#stiff.delete(slab);
      this.#replace(slab, this.#pack(slab));
      break;
    }
    for (const slab of this.#packed) {
      const packed = slab.packed!;
      this.#uncount(packed);
      try {
        packed.spillUnits();
      } finally {
        this.#count(packed);
      }
      this.#packed.delete(slab);
      return true;
    }
    return false;
  }

  #pack(slab: Slab): PackedSlab {
    const isFree = new Uint8Array(slotsPerSlab);
    for (const index of slab.free.subarray(0, slab.freeSlots)) isFree[index] = 1;
    return new PackedSlab(slab.buffer!, isFree, this.spill);
  }

  #replace(slab: Slab, packed: PackedSlab): void {
    this.#memory.release(slab.buffer!);
    slab.buffer = null;
    slab.packed = packed;
    this.#packed.add(slab);
    this.#residentSlabs--;
    this.#residentSlots -= slotsPerSlab - slab.freeSlots;
    this.#count(packed);
  }

  #makeReusable(slab: Slab): void {
    this.#closed.delete(slab);
    this.#stiff.delete(slab);
    this.#reusable.add(slab);
  }

  #remove(slab: Slab): void {
    if (slab === this.#open) this.#open = null;
    this.#reusable.delete(slab);
    this.#packed.delete(slab);
    if (slab.buffer !== null) {
      this.#memory.release(slab.buffer);
      this.#residentSlabs--;
    }
    this.#slabs[slab.number] = undefined;
    this.#freeNumbers.push(slab.number);
    if (this.#freeNumbers.length === this.#slabs.length) this.#reader.clear();
  }

  #count(packed: PackedSlab): void {
    this.#compressedBytes += packed.memoryBytes;
    this.#spilledBytes += packed.spilledBytes;
  }

  #uncount(packed: PackedSlab): void {
    this.#compressedBytes -= packed.memoryBytes;
    this.#spilledBytes -= packed.spilledBytes;
  }
}
