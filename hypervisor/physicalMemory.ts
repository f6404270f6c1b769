/**
 * A running guest's physical memory, looked at from outside of QEMU: HMP `gpa2hva` tells where it is in QEMU's address
 * space, and `/proc/PID/mem` has that. The guest goes on meanwhile, so nothing that is read here may count for more than a
 * guess.
 */
import { closeSync, openSync, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { findGpaRange, type GpaRange } from './gpaMap.js';
import type { QmpMonitor } from './qmpMonitor.js';
import type { RamStretch } from './ramStretch.js';

const readFrom = promisify(read);

interface MappedRange extends GpaRange {
  /** In QEMU's address space. */
  readonly address: number;
}

export class PhysicalMemory implements Disposable {
  readonly #descriptor: number;
  readonly #ranges: readonly MappedRange[];

  private constructor(descriptor: number, ranges: readonly MappedRange[]) {
    this.#descriptor = descriptor;
    this.#ranges = ranges;
  }

  /** @throws Error when QEMU's memory is not this user's to look at, QmpError */
  static async open(
    qmp: QmpMonitor,
    process: { readonly pid: number },
    gpaMap: readonly GpaRange[],
    signal?: AbortSignal,
  ): Promise<PhysicalMemory> {
    const told = await Promise.all(gpaMap.map((range) => hostAddress(qmp, range.gpaStart, signal)));
    const ranges = gpaMap.flatMap((range, at) => (told[at] == null ? [] : [{ ...range, address: told[at] }]));
    return new PhysicalMemory(openSync(`/proc/${process.pid}/mem`, 'r'), ranges);
  }

  /** Fills the buffer from a guest physical address on. @returns whether all of it is memory */
  read(gpa: number, into: Buffer): boolean {
    const address = this.address(gpa, into.length);
    if (address === null) return false;
    try {
      return readSync(this.#descriptor, into, 0, into.length, address) === into.length;
    } catch {
      return false;
    }
  }

  /** Likewise, without waiting for what is swapped out. Not to be disposed of meanwhile. */
  async load(gpa: number, into: Buffer): Promise<boolean> {
    const address = this.address(gpa, into.length);
    if (address === null) return false;
    try {
      return (await readFrom(this.#descriptor, into, 0, into.length, address)).bytesRead === into.length;
    } catch {
      return false;
    }
  }

  /** In QEMU's address space; null unless it, and so much from there on, is memory. */
  address(gpa: number, lengthBytes = 0): number | null {
    const range = findGpaRange(this.#ranges, gpa) as MappedRange | undefined;
    if (range === undefined || gpa - range.gpaStart + lengthBytes > range.lengthBytes) return null;
    return range.address + gpa - range.gpaStart;
  }

  /** Where guest physical memory is kept; nothing for what is no memory. */
  stretch(gpa: number, lengthBytes: number): RamStretch[] {
    const range = findGpaRange(this.#ranges, gpa);
    if (range === undefined) return [];
    const offset = gpa - range.gpaStart;
    return [
      {
        block: range.block,
        offset: range.blockOffset + offset,
        lengthBytes: Math.min(lengthBytes, range.lengthBytes - offset),
      },
    ];
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}

/** `Host virtual address for 0x100000 (pc.ram) is 0x7fa4280ff000` */
export async function hostAddress(qmp: QmpMonitor, gpa: number, signal?: AbortSignal): Promise<number | null> {
  const line = `gpa2hva 0x${gpa.toString(16)}`;
  const answer = await qmp.execute('human-monitor-command', { 'command-line': line }, { signal });
  const [, address] = /^Host virtual address for .* is 0x([0-9a-f]+)/.exec(answer) ?? [];
  return address === undefined ? null : Number.parseInt(address, 16);
}
