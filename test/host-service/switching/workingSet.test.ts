/** What a guest will touch soon, found in its page tables and by what its memory points to. */
import { describe, expect, test } from 'vitest';
import { cpuWorkingSet } from '../../../host-service/switching/cpuWorkingSet.js';
import { mergedPages, pagesOf } from '../../../host-service/switching/gpaStretches.js';
import { PageTables } from '../../../host-service/switching/pageTables.js';
import { Pointers } from '../../../host-service/switching/pointers.js';

const pageBytes = 4096;
const present = 1n;
const writable = 2n;
const accessed = 0x20n;
const large = 0x80n;
const noExecute = 1n << 63n;

/** A guest of 64 MiB with page tables. */
class Guest {
  readonly #memory = Buffer.alloc(64 * 2 ** 20);
  #next = 0x10_0000;

  read(gpa: number, into: Buffer): boolean {
    if (gpa < 0 || gpa + into.length > this.#memory.length) return false;
    this.#memory.copy(into, 0, gpa, gpa + into.length);
    return true;
  }

  page(): number {
    this.#next += pageBytes;
    return this.#next;
  }

  set(gpa: number, word: bigint): void {
    this.#memory.writeBigUInt64LE(BigInt.asUintN(64, word), gpa);
  }

  get(gpa: number): bigint {
    return this.#memory.readBigUInt64LE(gpa);
  }

  /** @param size - 1: a page, 2: 2 MiB */
  map(root: number, address: bigint, gpa: number, flags: bigint, size = 1): void {
    let table = root;
    for (let level = 4; level > size; level--) {
      const entry = table + 8 * Number((address >> BigInt(12 + 9 * (level - 1))) & 0x1ffn);
      if (this.get(entry) === 0n) this.set(entry, BigInt(this.page()) | present | writable | accessed);
      table = Number(this.get(entry) & 0xf_ffff_ffff_f000n);
    }
    const entry = table + 8 * Number((address >> BigInt(12 + 9 * (size - 1))) & 0x1ffn);
    this.set(entry, BigInt(gpa) | flags | (size === 2 ? large : 0n));
  }
}

const kernel = 0xffff_ffff_8100_0000n;
const direct = 0xffff_8880_0000_0000n;
const idt = 0xffff_fe00_0000_0000n;
const code = 0x80_0000;
const data = 0xa0_0000;

/** Kernel code and data of 2 MiB each, a page of constants, all memory in large pages besides, and two processes. */
function booted() {
  const guest = new Guest();
  const root = guest.page();
  guest.map(root, kernel, code, present | accessed, 2);
  guest.map(root, kernel + 0x20_0000n, data, present | writable | accessed | noExecute, 2);
  const constants = guest.page();
  guest.map(root, kernel + 0x40_0000n, constants, present | noExecute);
  for (let at = 0; at < 64; at += 2)
    guest.map(root, direct + BigInt(at * 2 ** 20), at * 2 ** 20, present | writable | noExecute, 2);
  const gates = guest.page();
  guest.map(root, idt, gates, present | noExecute);
  const handler = kernel + 0x1234n;
  for (const vector of [14, 0xec]) {
    guest.set(gates + 16 * vector, (handler & 0xffffn) | (((handler >> 16n) & 0xffffn) << 48n));
    guest.set(gates + 16 * vector + 8, handler >> 32n);
  }
  const [own, heap, farther, unused] = [0x200_0000, guest.page(), guest.page(), guest.page()];
  guest.set(data + 0x5000, direct + BigInt(heap) + 8n);
  guest.set(heap + 16, direct + BigInt(farther));
  guest.set(data + 0x5008, kernel + 0x3000n);
  // No pointers: nothing is mapped there, or it is no address.
  guest.set(data + 0x5010, 0xffff_ffff_f000_0000n);
  guest.set(data + 0x5018, BigInt(unused));
  const other = guest.page();
  for (let at = 256; at < 512; at++) guest.set(other + 8 * at, guest.get(root + 8 * at));
  guest.set(farther + 32, direct + BigInt(other));
  const [text, idle] = [guest.page(), guest.page()];
  guest.map(other, 0x40_0000n, text, present | accessed);
  guest.map(other, 0x40_1000n, idle, present);
  const memory = { read: (gpa: number, into: Buffer) => guest.read(gpa, into) };
  const cpu = {
    pageTable: root,
    levels: 4,
    interrupts: idt,
    own: direct + BigInt(own),
    addresses: [handler, direct + BigInt(own), idt],
  };
  return { memory, cpu, root, own, heap, farther, unused, other, text, idle, constants, gates };
}

describe('what a guest will touch soon', () => {
  test('is the kernel, what its data point to, and what processes have used', () => {
    const { memory, cpu, ...at } = booted();
    const found = cpuWorkingSet([cpu], memory, false);
    const [now, soon, later] = [found.now, found.soon, found.later].map((stretches) => new Set(pagesOf(stretches)));
    for (const page of [at.root, at.own, at.own + 0x3_f000, at.gates, code + 0x1000]) expect(now).toContain(page);
    for (const page of [data, data + 0x1f_f000, at.heap]) expect(soon).toContain(page);
    for (const page of [code, code + 0x1f_f000, at.constants, at.farther]) expect(later).toContain(page);
    const all = new Set([...now!, ...soon!, ...later!]);
    expect(all).not.toContain(at.unused);
    // The other process is found at third hand only, which is too far.
    expect(all).not.toContain(at.text);
  });

  test('is only what is needed at once, when that was asked for', () => {
    const { memory, cpu } = booted();
    const { now, soon, later } = cpuWorkingSet([cpu], memory, true);
    expect(now.length).toBeGreaterThan(5);
    expect([...soon, ...later]).toEqual([]);
  });

  test('knows other processes by the half that all of them share', () => {
    const { memory, root, other, heap, text, idle } = booted();
    const tables = new PageTables(memory, root, 4);
    expect([root, other, heap].map((page) => tables.isRoot(page))).toEqual([false, true, false]);
    const used = pagesOf(tables.ofRoot(other).usedByProcess(100));
    expect(used).toContain(text);
    expect(used).not.toContain(idle);
    expect(pagesOf(tables.ofRoot(other).lowerTables(100))).not.toContain(text);
  });

  test('follows pointers once each, and no more than asked for', () => {
    const { memory, root, heap } = booted();
    const pointers = new Pointers(memory, new PageTables(memory, root, 4), 4);
    const known = new Set<number>();
    expect(pointers.of([data + 0x5000], known, 10)).toEqual([heap, code + 0x3000]);
    expect(pointers.of([data + 0x5000], known, 10)).toEqual([]);
    expect(pointers.of([data + 0x5000, heap], new Set(), 1)).toHaveLength(2);
  });
});

test('stretches become pages and back', () => {
  const stretches = [
    { gpa: 0x3000, lengthBytes: 0x1000 },
    { gpa: 0x1000, lengthBytes: 0x2000 },
    { gpa: 0x2000, lengthBytes: 0x1000 },
    { gpa: 0x8000, lengthBytes: 0x1000 },
  ];
  expect(mergedPages(stretches)).toEqual([
    { gpa: 0x1000, lengthBytes: 0x3000 },
    { gpa: 0x8000, lengthBytes: 0x1000 },
  ]);
});
