/** How much of a guest's memory has ever been written to: what its host has pages for. The rest is zero. */
import { readFile } from 'node:fs/promises';
import type { RamBlockInfo } from './ramBlocks.js';

const pageBytes = 4096;

/** @returns pages of 4 KiB; null where that cannot be told: no mapping is as large as a RAM block */
export async function touchedPages(pid: number, blocks: readonly RamBlockInfo[]): Promise<number | null> {
  const text = await readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => '');
  const residentBySize = new Map<number, number>();
  for (const { sizeBytes, residentBytes } of parseMappings(text))
    residentBySize.set(sizeBytes, (residentBySize.get(sizeBytes) ?? 0) + residentBytes);
  const sizes = new Set(blocks.map(({ usedBytes }) => usedBytes));
  let bytes = 0;
  for (const size of sizes) bytes += residentBySize.get(size) ?? 0;
  return bytes === 0 ? null : Math.floor(bytes / pageBytes);
}

interface Mapping {
  readonly sizeBytes: number;
  readonly residentBytes: number;
}

/** /proc/PID/smaps (Linux, Documentation/filesystems/proc.rst). */
export function parseMappings(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  let sizeBytes = 0;
  for (const line of text.split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range !== null) sizeBytes = Number(BigInt(`0x${range[2]}`) - BigInt(`0x${range[1]}`));
    const resident = /^Rss:\s+(\d+) kB$/.exec(line)?.[1];
    if (resident !== undefined) mappings.push({ sizeBytes, residentBytes: Number(resident) * 1024 });
  }
  return mappings;
}
