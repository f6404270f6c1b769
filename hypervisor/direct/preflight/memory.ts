/** Whether the destination has memory for the guest. */
import { readFile } from 'node:fs/promises';
import type { Finding } from '../../finding.js';
import type { DestinationPlan } from './plan.js';

const PAGE_BYTES = 4096;
/** QEMU itself, its device state and the relay. */
const OVERHEAD_BYTES = 256 * 1024 * 1024;

export async function checkMemory({ ramBlocks }: Pick<DestinationPlan, 'ramBlocks'>): Promise<Finding[]> {
  const neededByPageSize = new Map([[PAGE_BYTES, OVERHEAD_BYTES]]);
  for (const { pageSizeBytes, usedBytes } of ramBlocks) {
    neededByPageSize.set(pageSizeBytes, (neededByPageSize.get(pageSizeBytes) ?? 0) + usedBytes);
  }
  const findings = await Promise.all(
    [...neededByPageSize].map(async ([pageSizeBytes, neededBytes]): Promise<Finding[]> => {
      const freeBytes = pageSizeBytes > PAGE_BYTES ? await freeHugePageBytes(pageSizeBytes) : await availableBytes();
      if (freeBytes >= neededBytes) return [];
      const kind = pageSizeBytes > PAGE_BYTES ? `memory in pages of ${pageSizeBytes / 1024} KiB` : 'memory';
      const message = `the guest needs ${megabytes(neededBytes)} of ${kind}, ${megabytes(freeBytes)} are available`;
      return [
        { severity: 'refuse', code: 'VMMIG_DESTINATION_MEMORY', message, remedy: 'free some memory on this host' },
      ];
    }),
  );
  return findings.flat();
}

async function availableBytes(): Promise<number> {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1];
  return Number(kibibytes ?? 0) * 1024;
}

async function freeHugePageBytes(pageSizeBytes: number): Promise<number> {
  const folder = `/sys/kernel/mm/hugepages/hugepages-${pageSizeBytes / 1024}kB`;
  return Number(await readFile(`${folder}/free_hugepages`, 'utf8').catch(() => '0')) * pageSizeBytes;
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
