/**
 * QEMU's RAMBlocks, read from HMP `info ramblock`, the only place where their page sizes are told:
 *
 *                   Block Name    PSize              Offset               Used              Total                HVA  RO
 *                       pc.ram    4 KiB  0x0000000000000000 0x0000000040000000 0x0000000040000000 0x00007f3c40000000  rw
 *         0000:00:01.0/vga.vram    2 MiB  …
 *
 * The last two columns came with later versions.
 */

export interface RamBlockInfo {
  /** As in the migration stream. */
  readonly name: string;
  /** Of the host's backing memory: 4096, or the size of a huge page. */
  readonly pageSizeBytes: number;
  readonly usedBytes: number;
  readonly totalBytes: number;
}

const ROW = /^ *(.+?) +(\d+) ([KMGT]i)?B +0x[0-9a-f]+ 0x([0-9a-f]+) 0x([0-9a-f]+)/;
const UNITS: Readonly<Record<string, number>> = { Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3, Ti: 1024 ** 4 };

export function parseRamBlocks(text: string): RamBlockInfo[] {
  const blocks: RamBlockInfo[] = [];
  for (const line of text.split(/\r?\n/)) {
    const [, name, count, unit = '', used, total] = ROW.exec(line) ?? [];
    if (name === undefined || used === undefined || total === undefined) continue;
    blocks.push({
      name,
      pageSizeBytes: Number(count) * (UNITS[unit] ?? 1),
      usedBytes: Number.parseInt(used, 16),
      totalBytes: Number.parseInt(total, 16),
    });
  }
  return blocks;
}
