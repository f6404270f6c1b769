/**
 * A slab that has been put away: its pages compressed in units, each in memory or in the spill file, and
 * gone when the last of its pages is freed. Frames carry zstd's checksum: what comes back from a file is
 * guest memory, and nothing else would notice a wrong byte in it.
 */
import { Compressor, decompress } from 'zstd-napi';
import { pageBytes } from '../digest.js';
import { StoreError } from './errors.js';
import type { SpillFile } from './spillFile.js';

/** Enough to compress well, little enough to be unpacked for a single page. */
export const unitPages = 16;
const unitBytes = unitPages * pageBytes;
/** Unpacked units that are remembered: a batch takes its pages by address, and they lie in several units. */
const rememberedUnits = 16;

interface Unit {
  /** Null when they are in the spill file. */
  bytes: Buffer | null;
  readonly lengthBytes: number;
  extent: number;
  livePages: number;
}

const compressor = new Compressor();
compressor.setParameters({ compressionLevel: 1, checksumFlag: true });

export class PackedSlab {
  readonly #units: Unit[] = [];
  #memoryBytes = 0;
  #spilledBytes = 0;

  /**
   * @param raw - the slab
   * @param isFree - one entry a page
   * @param spill - must be the same for the slab's whole life
   */
  constructor(
    raw: Buffer,
    isFree: Uint8Array,
    private readonly spill: SpillFile | null,
  ) {
    for (let page = 0; page < isFree.length; page += unitPages) {
      let livePages = unitPages;
      for (let index = page; index < page + unitPages; index++) livePages -= isFree[index]!;
      // A copy of just the length: what the compressor returns may be a part of something larger.
      const bytes =
        livePages > 0 ? exactly(compressor.compress(raw.subarray(page * pageBytes).subarray(0, unitBytes))) : null;
      const lengthBytes = bytes?.length ?? 0;
      this.#units.push({ bytes, lengthBytes, extent: -1, livePages });
      this.#memoryBytes += lengthBytes;
    }
  }

  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  get spilledBytes(): number {
    return this.#spilledBytes;
  }

  free(page: number): void {
    const unit = this.#units[Math.floor(page / unitPages)]!;
    if (--unit.livePages > 0) return;
    if (unit.bytes !== null) this.#memoryBytes -= unit.lengthBytes;
    else {
      this.#spilledBytes -= unit.lengthBytes;
      this.spill!.release(unit.extent);
    }
    unit.bytes = null;
  }

  /**
   * Moves what is in memory to the file, unit by unit.
   *
   * @throws StoreError when the file does not take it; what was not moved is still in memory
   */
  spillUnits(): void {
    for (const unit of this.#units) {
      if (unit.bytes === null) continue;
      unit.extent = this.spill!.write(unit.bytes);
      unit.bytes = null;
      this.#memoryBytes -= unit.lengthBytes;
      this.#spilledBytes += unit.lengthBytes;
    }
  }

  /** The pages of the unit that the page is in. Valid until the next call of anything. */
  unpack(page: number, reader: UnitReader): Buffer {
    return reader.unpack(this.#units[Math.floor(page / unitPages)]!, this.spill);
  }
}

/** Unpacks units, and remembers the last few. */
export class UnitReader {
  readonly #units: Unit[] = [];
  readonly #raw: Buffer[] = [];
  #next = 0;

  unpack(unit: Unit, spill: SpillFile | null): Buffer {
    const known = this.#units.indexOf(unit);
    if (known >= 0) return this.#raw[known]!;
    const raw = decompressUnit(unit.bytes ?? spill!.read(unit.extent, unit.lengthBytes));
    this.#units[this.#next] = unit;
    this.#raw[this.#next] = raw;
    this.#next = (this.#next + 1) % rememberedUnits;
    return raw;
  }

  /** Lets go of what it remembers. */
  clear(): void {
    this.#units.length = this.#raw.length = this.#next = 0;
  }
}

function decompressUnit(packed: Buffer): Buffer {
  let raw: Buffer;
  try {
    raw = decompress(packed);
  } catch (cause) {
    throw new StoreError('VMMIG_STORE_CORRUPT', 'pages that were put away did not come back as they were', cause);
  }
  if (raw.length !== unitBytes)
    throw new StoreError('VMMIG_STORE_CORRUPT', `a unit of pages came back with ${raw.length} bytes`);
  return raw;
}

function exactly(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
