/**
 * The payloads of the agent's frames. Everything in them comes from a guest that may be hostile: each number is
 * checked before it is used, and what does not fit is a protocol error.
 */

import { protocolError } from './errors.js';
import { PAGE_BYTES } from './pages.js';

/** A disk of the guest, as the guest sees it. */
export interface GuestDisk {
  index: number;
  /** The guest kernel's name, such as `vda`. */
  name: string;
  /** Serial number as set on the QEMU device; empty when there is none. */
  serial: string;
  sizeBytes: number;
  /** `dddd:bb:dd.f` of the PCI function that the disk hangs on, in the guest. */
  pciAddress: string | null;
}

/** What the agent says about itself. */
export interface AgentHello {
  agentVersion: string;
  protocolVersion: number;
  pageSizeBytes: number;
  /** Whether a scan only opens files that the guest kernel's name cache knows (Linux 5.12). */
  walksCacheOnly: boolean;
  /** Whether the agent sees which metadata blocks are cached (Linux 6.5). */
  seesBlocks: boolean;
}

/** The end of a scan. */
export interface ScanSummary {
  mode: 'full' | 'changes';
  scanMs: number;
  /** Pages in all runs, in those groups too that were not sent again. */
  pages: number;
  /** Resident pages that are in no run, by reason. */
  skipped: Record<string, number>;
  /** Regular files that were looked at. */
  files: number;
  /** Names that were left alone because following them could have read from disk. */
  uncachedNames: number;
  /** Pages of files and block devices in the guest's memory by its kernel's count: what a perfect scan would find. */
  fileCachePages: number;
}

/** Receives the runs of a GROUPS frame. */
export interface RunSink {
  beginGroup(id: number, tracked: boolean): void;
  run(pfn: number, pages: number, disk: number, diskOffsetBytes: number): void;
  endGroup(): void;
}

const MAX_DISKS = 256;
const MAX_GROUP_RUNS = 4096;
/** 8 TiB of guest memory: keeps a page number and a run's index within one exact number when sorting. */
export const MAX_PFN = 2 ** 31;

const skipReasons: Record<number, string> = {
  1: 'dirty',
  2: 'writeback',
  3: 'delalloc',
  4: 'unknown',
  5: 'encoded',
  6: 'encrypted',
  7: 'inline',
  8: 'unaligned',
  9: 'unwritten',
  10: 'hole',
  11: 'unmapped-device',
  12: 'vanished',
};
const FILES_COUNTER = 64;
const UNCACHED_NAMES_COUNTER = 65;
const FILE_CACHE_COUNTER = 66;

/** Reads numbers and short texts, and nothing beyond the payload's end. */
class PayloadReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** Advances over `count` bytes and returns where they begin. */
  #take(count: number): number {
    const at = this.#at;
    this.#at += count;
    if (this.#at > this.#bytes.length) throw protocolError('a message that ends too early');
    return at;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  /** A 64-bit number that has to be an exact JavaScript number. */
  u64(): number {
    const value = this.u32() + this.u32() * 2 ** 32;
    if (value > Number.MAX_SAFE_INTEGER) throw protocolError('a number beyond 2^53');
    return value;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw protocolError('a message that ends too early');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 128;
    }
    throw protocolError('a number beyond 2^53');
  }

  zigzag(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  text(): string {
    const length = this.u8();
    const at = this.#take(length);
    const text = this.#bytes.toString('latin1', at, at + length);
    if (!/^[ -~]*$/.test(text)) throw protocolError('a text that is not printable ASCII');
    return text;
  }

  end(): void {
    if (!this.done) throw protocolError('a message with bytes after its end');
  }
}

export function decodeHello(payload: Buffer): AgentHello {
  const reader = new PayloadReader(payload);
  reader.u8(); // lowest version
  reader.u8(); // highest version
  const protocolVersion = reader.u8();
  const features = reader.u8();
  const pageSizeBytes = reader.u32();
  return {
    agentVersion: reader.text(),
    protocolVersion,
    pageSizeBytes,
    walksCacheOnly: (features & 1) !== 0,
    seesBlocks: (features & 2) !== 0,
  };
}

export function decodeError(payload: Buffer): number {
  return new PayloadReader(payload).u16();
}

export function decodeDisks(payload: Buffer): GuestDisk[] {
  const reader = new PayloadReader(payload);
  const count = reader.u16();
  if (count > MAX_DISKS) throw protocolError(`${count} disks`);
  const disks: GuestDisk[] = [];
  for (let index = 0; index < count; index++) {
    const sizeBytes = reader.u64();
    const name = reader.text();
    const serial = reader.text();
    const pci = reader.text();
    if (pci && !/^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(pci)) throw protocolError('no PCI address');
    disks.push({ index, name, serial, sizeBytes, pciAddress: pci || null });
  }
  reader.end();
  return disks;
}

/**
 * Decodes the groups of a GROUPS frame into `sink`.
 * @throws AgentError `VMMIG_AGENT_PROTOCOL`, also for a run that leaves its disk.
 */
export function decodeGroups(payload: Buffer, disks: readonly GuestDisk[], sink: RunSink): void {
  const reader = new PayloadReader(payload);
  let nextPfn = 0;
  let nextOffsetBytes = 0;
  let disk = 0;
  while (!reader.done) {
    const id = reader.u64();
    const head = reader.varint();
    const count = Math.floor(head / 2);
    if (count > MAX_GROUP_RUNS) throw protocolError(`a group of ${count} runs`);
    sink.beginGroup(id, head % 2 === 0);
    for (let i = 0; i < count; i++) {
      const shape = reader.varint();
      const pages = Math.floor(shape / 2) + 1;
      if (pages > MAX_GROUP_RUNS) throw protocolError(`a run of ${pages} pages`);
      if (shape % 2 === 1) disk = reader.varint();
      const pfn = nextPfn + reader.zigzag();
      const offsetBytes = nextOffsetBytes + reader.zigzag() * 512;
      nextPfn = pfn + pages;
      nextOffsetBytes = offsetBytes + pages * PAGE_BYTES;
      const sizeBytes = disks[disk]?.sizeBytes ?? -1;
      if (pfn < 0 || nextPfn > MAX_PFN) throw protocolError('a page beyond any memory');
      if (offsetBytes < 0 || nextOffsetBytes > sizeBytes) throw protocolError('a run beyond its disk');
      sink.run(pfn, pages, disk, offsetBytes);
    }
    sink.endGroup();
  }
}

/** Calls `remove` with the id of each group that is no more. */
export function decodeRemoved(payload: Buffer, remove: (id: number) => void): void {
  const reader = new PayloadReader(payload);
  while (!reader.done) remove(reader.u64());
}

export function decodeDone(payload: Buffer): ScanSummary {
  const reader = new PayloadReader(payload);
  const mode = reader.u8();
  if (mode !== 1 && mode !== 2) throw protocolError(`scan mode ${mode}`);
  const scanMs = reader.u32();
  const pages = reader.varint();
  const summary: ScanSummary = {
    mode: mode === 1 ? 'full' : 'changes',
    scanMs,
    pages,
    skipped: {},
    files: 0,
    uncachedNames: 0,
    fileCachePages: 0,
  };
  for (let count = 0; !reader.done; count++) {
    if (count === 256) throw protocolError('too many counters');
    const code = reader.varint();
    const value = reader.varint();
    const reason = skipReasons[code];
    if (reason !== undefined) summary.skipped[reason] = value;
    else if (code === FILES_COUNTER) summary.files = value;
    else if (code === UNCACHED_NAMES_COUNTER) summary.uncachedNames = value;
    else if (code === FILE_CACHE_COUNTER) summary.fileCachePages = value;
    else if (code < FILES_COUNTER) summary.skipped[`reason-${code}`] = value;
  }
  return summary;
}
