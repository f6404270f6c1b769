/**
 * The pages that a guest's processors touch when they go on, the first of which would cost it a round trip each, one after
 * the other. Guesses throughout: the guest runs while its memory is looked at.
 *
 * Interrupt gates: Intel SDM volume 3, 6.14.1.
 */
import type { CpuState, RamStretch } from '../../hypervisor/index.js';
import { type LookedAt, PageTables } from './pageTables.js';

export interface WorkingSet {
  /** What the registers point to, the code of a few interrupts, and the page tables by which all of it is found. */
  readonly now: readonly RamStretch[];
  /** The process that ran last, the kernel's tables, and the kernel: all that is mapped around its interrupts' code. */
  readonly soon: readonly RamStretch[];
}

/** Page fault, and the timer's and the other processors' interrupts in Linux. */
const vectors = [14, 0xec, 0xfb, 0xfd];
const gateBytes = 16;
const maxTables = 1024;
const maxProcessPages = 2048;
/** Linux takes some 50 MiB, data included. */
const kernelBytes = 64 * 2 ** 20;

export function cpuWorkingSet(cpus: readonly CpuState[], memory: LookedAt): WorkingSet {
  const now: RamStretch[] = [];
  const soon: RamStretch[] = [];
  for (const [index, { pageTable, levels, interrupts, addresses }] of cpus.entries()) {
    const tables = new PageTables(memory, pageTable, levels);
    for (const address of addresses) tables.walk(address);
    const handlers = vectors.map((vector) => handlerOf(tables, interrupts + BigInt(vector * gateBytes)));
    for (const handler of handlers) if (handler !== null) tables.walk(handler);
    now.push(...tables.touched());
    soon.push(...tables.usedByProcess(maxProcessPages));
    const [pageFault] = handlers;
    // All processors share one kernel.
    if (index === 0 && pageFault != null)
      soon.push(...tables.upperTables(maxTables), ...tables.around(pageFault, kernelBytes));
  }
  return { now, soon };
}

function handlerOf(tables: PageTables, gateAddress: bigint): bigint | null {
  const gate = tables.walk(gateAddress);
  const low = gate === null ? null : tables.word(gate);
  const high = gate === null ? null : tables.word(gate + 8);
  if (low === null || high === null) return null;
  return (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | ((high & 0xffff_ffffn) << 32n);
}
