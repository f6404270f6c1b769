/**
 * The addresses that a guest's processors will need first when they go on, from HMP `info registers -a`. x86-64 only:
 *
 *     CPU#0
 *     RAX=… RSP=ffffc9000000bee8
 *     RIP=ffffffff81c0b2af RFL=…
 *     GS =0000 ffff88801f200000 ffffffff 00000000
 *     TR =0040 fffffe3a84ae4000 00004087 00008900 DPL=0 TSS64-avl
 *     GDT=     fffffe3a84ae2000 0000007f
 *     IDT=     fffffe0000000000 00000fff
 *     CR0=80050033 CR2=… CR3=000000000e6b2000 CR4=000006f0
 */
import type { QmpMonitor } from './qmpMonitor.js';

export interface CpuState {
  /** Guest physical address of the top page table. */
  readonly pageTable: number;
  /** 4, or 5 with LA57. */
  readonly levels: number;
  /** Of the interrupt descriptor table. */
  readonly interrupts: bigint;
  /** Where the processor's own data begin, by GS; null: not in the upper half of the address space. */
  readonly own: bigint | null;
  /** Linear addresses: of the next instruction, the stack, the processor's own data and its tables. */
  readonly addresses: readonly bigint[];
}

const fiveLevels = 1n << 12n;
const tableMask = 0xf_ffff_ffff_f000n;

/** Those in long mode with paging; none where HMP says it in another way. */
export async function cpuStates(qmp: QmpMonitor, signal?: AbortSignal): Promise<CpuState[]> {
  const text = await qmp.execute('human-monitor-command', { 'command-line': 'info registers -a' }, { signal });
  return text.split(/^CPU#/m).flatMap((cpu) => {
    const find = (pattern: RegExp) => {
      const [, found] = pattern.exec(cpu) ?? [];
      return found === undefined ? null : BigInt(`0x${found}`);
    };
    const pageTable = find(/\bCR3=([\da-f]{16})\b/);
    const levels = find(/\bCR4=([\da-f]+)\b/);
    const interrupts = find(/^IDT= +([\da-f]{16})\b/m);
    const named = [/\bRIP=([\da-f]{16})\b/, /\bRSP=([\da-f]{16})\b/, /^GDT= +([\da-f]{16})\b/m];
    const segments = [
      /^GS =[\da-f]{4} ([\da-f]{16})\b/m,
      /^FS =[\da-f]{4} ([\da-f]{16})\b/m,
      /^TR =[\da-f]{4} ([\da-f]{16})\b/m,
    ];
    const addresses = [...named, ...segments].map(find).filter((found) => found !== null && found !== 0n) as bigint[];
    const own = segments.map(find)[0] ?? null;
    if (pageTable === null || levels === null || interrupts === null) return [];
    return [
      {
        pageTable: Number(pageTable & tableMask),
        levels: (levels & fiveLevels) === 0n ? 4 : 5,
        interrupts,
        own: own !== null && own >> 63n === 1n ? own : null,
        addresses: [...addresses, interrupts],
      },
    ];
  });
}
