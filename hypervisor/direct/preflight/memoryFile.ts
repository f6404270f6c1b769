/**
 * Whether a file that the destination is to keep the guest's RAM in may be someone's already. Two QEMUs with one memory
 * file, the source's and the destination's, would each write to the other's guest.
 */
import { stat, statfs } from 'node:fs/promises';
import { processesMapping } from '../../fileMappings.js';
import type { Finding } from '../../finding.js';
import type { DestinationPlan } from './plan.js';

/** Linux's <linux/magic.h>: file systems that no other host can see. */
const localMemory: ReadonlySet<number> = new Set([
  0x0102_1994 /* tmpfs */, 0x9584_58f6 /* hugetlbfs */, 0x8584_58f6 /* ramfs */,
]);

export async function checkMemoryFiles({ commandLine }: DestinationPlan): Promise<Finding[]> {
  const paths = new Set(commandLine.requiredPaths.filter(({ isMemory }) => isMemory).map(({ path }) => path));
  const problems = await Promise.all([...paths].map(async (path) => ({ path, problem: await problemOf(path) })));
  return problems.flatMap(({ path, problem }): Finding[] => {
    if (problem === null) return [];
    const remedy = 'give the guest another memory file on this host: a replacement of the path in the inventory';
    return [{ severity: 'refuse', code: 'VMMIG_DESTINATION_PATH', message: `memory file ${path} ${problem}`, remedy }];
  });
}

async function problemOf(path: string): Promise<string | null> {
  const file = await stat(path).catch(() => null);
  if (file === null || !file.isFile() || file.blocks === 0) return null;
  const [user] = await processesMapping(path, file.ino);
  if (user !== undefined) return `is in use: process ${user} has mapped it`;
  const { type } = await statfs(path);
  return localMemory.has(type)
    ? null
    : 'holds data, and lies where other hosts may see it: it may be the running guest';
}
