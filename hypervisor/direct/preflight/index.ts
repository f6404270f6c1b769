/** Whether a destination can take a guest in: everything that speaks against it, at once, changing nothing. */
import type { Finding } from '../../finding.js';
import { checkAddresses } from './addresses.js';
import { checkMemory } from './memory.js';
import { checkMemoryFiles } from './memoryFile.js';
import { checkPaths } from './paths.js';
import type { DestinationPlan } from './plan.js';
import { checkQemu } from './qemu.js';
import { checkUserfaultfd } from './userfaultfd.js';

export { checkSourceDirectory } from './paths.js';
export type { DestinationDisk, DestinationPlan } from './plan.js';

/** Runs on the destination, as the user that QEMU will run as. Includes what the command line itself gave rise to. */
export async function checkDestination(
  plan: DestinationPlan,
  options: { signal?: AbortSignal } = {},
): Promise<Finding[]> {
  const findings = await Promise.all([
    checkQemu(plan, options.signal),
    checkPaths(plan),
    checkAddresses(plan),
    checkMemory(plan),
    checkMemoryFiles(plan),
    checkUserfaultfd(plan),
  ]);
  return [...plan.commandLine.findings, ...findings.flat()];
}
