/**
 * The pages that a guest's processors touch when they go on, the first of which would cost it a round trip each, one after
 * the other. Guesses throughout: the guest runs while its memory is looked at.
 *
 * Interrupt gates: Intel SDM volume 3, 6.14.1.
 */
import type { CpuState } from '../../hypervisor/index.js';
import { type GpaStretch, pageAt, pageBytes, pagesOf } from './gpaStretches.js';
import { type LookedAt, PageTables } from './pageTables.js';
import { Pointers } from './pointers.js';

/** In each, what is most likely first. */
export interface WorkingSet {
  /** What the registers point to, the code of a few interrupts, and the page tables by which all of it is found. */
  readonly now: readonly GpaStretch[];
  /** Page tables; the kernel's data: what may be written to of all that is mapped around its interrupts' code; and what that points to. */
  readonly soon: readonly GpaStretch[];
  /** What processes have used, the kernel's code, what is pointed to at second hand, and what is only read of the kernel. */
  readonly later: readonly GpaStretch[];
}

/** Page fault, and the timer's and the other processors' interrupts in Linux. */
const vectors = [14, 0xec, 0xfb, 0xfd];
const gateBytes = 16;
const maxTables = 1024;
const maxProcesses = 256;
const maxProcessPages = 2048;
const maxPointedTo = 4096;
/** Linux takes some 50 MiB, data included. */
const kernelBytes = 64 * 2 ** 20;
/** What Linux keeps for each processor: where GS points to, and what follows. */
const ownBytes = 256 * 1024;

/** @param isBrief - only what is needed now */
export function cpuWorkingSet(cpus: readonly CpuState[], memory: LookedAt, isBrief: boolean): WorkingSet {
  const now: GpaStretch[] = [];
  const found: { readonly tables: PageTables; readonly levels: number; readonly pageFault: bigint | null }[] = [];
  for (const { pageTable, levels, interrupts, own, addresses } of cpus) {
    const tables = new PageTables(memory, pageTable, levels);
    for (const address of addresses) tables.walk(address);
    const handlers = vectors.map((vector) => handlerOf(tables, interrupts + BigInt(vector * gateBytes)));
    for (const handler of handlers) if (handler !== null) tables.walk(handler);
    now.push(...tables.touched());
    const gpa = own === null ? null : tables.walk(own);
    if (gpa !== null) now.push({ gpa: gpa - (gpa % pageBytes), lengthBytes: ownBytes });
    found.push({ tables, levels, pageFault: handlers[0] ?? null });
  }
  // All processors share one kernel.
  const one = isBrief ? undefined : found.find(({ pageFault }) => pageFault !== null);
  if (one === undefined) return { now, soon: [], later: [] };
  const running = found.map(({ tables }) => tables);
  return { now, ...kernelSet(one.pageFault!, running, new Pointers(memory, one.tables, one.levels), now) };
}

/** @param address - of the kernel's code @param touched - what the processors use, which points to more */
function kernelSet(
  address: bigint,
  running: readonly PageTables[],
  pointers: Pointers,
  touched: readonly GpaStretch[],
): Pick<WorkingSet, 'soon' | 'later'> {
  const { tables } = pointers;
  const { data, code, constants } = tables.around(address, kernelBytes);
  const known = new Set(pagesOf([...touched, ...data]));
  const fixed = new Set(pagesOf([...code, ...constants]));
  const first = pointers.of([...known], known, maxPointedTo);
  const heap = first.filter((page) => !fixed.has(page));
  const second = pointers.of(heap, known, maxPointedTo);
  const roots = [...heap, ...second].filter((page) => tables.isRoot(page)).slice(0, maxProcesses);
  const processes = [...running, ...roots.map((root) => tables.ofRoot(root))];
  return {
    soon: [
      ...roots.map(pageAt),
      ...processes.flatMap((process) => process.lowerTables(maxTables)),
      ...tables.upperTables(maxTables),
      ...data,
      ...heap.map(pageAt),
    ],
    later: [
      ...processes.flatMap((process) => process.usedByProcess(maxProcessPages)),
      ...first.filter((page) => fixed.has(page)).map(pageAt),
      ...code,
      ...second.map(pageAt),
      ...constants,
    ],
  };
}

function handlerOf(tables: PageTables, gateAddress: bigint): bigint | null {
  const gate = tables.walk(gateAddress);
  const low = gate === null ? null : tables.word(gate);
  const high = gate === null ? null : tables.word(gate + 8);
  if (low === null || high === null) return null;
  return (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | ((high & 0xffff_ffffn) << 32n);
}
