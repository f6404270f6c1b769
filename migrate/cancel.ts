/** Cancels a migration that another vmmig on this machine is busy with. */
import { setTimeout as delay } from 'node:timers/promises';
import { VmmigError } from './errors.js';
import { readReport } from './history.js';
import type { CancelResult } from './requests.js';
import { runningMigration } from './running.js';

const pollIntervalMs = 50;

/**
 * Asks for the cancellation as Ctrl-C would, and waits for the migration's end. Past the commit point it
 * ends as `moved`.
 * @throws VmmigError VMMIG_USAGE_NOT_MIGRATING
 */
export async function cancelMigration(vm: string): Promise<CancelResult> {
  const running = await runningMigration(vm);
  if (running === null)
    throw new VmmigError('VMMIG_USAGE_NOT_MIGRATING', `no vmmig on this machine is moving a guest named "${vm}"`);
  // Not SIGINT: asking again must never count as the operator pressing Ctrl-C again.
  process.kill(running.pid, 'SIGTERM');
  while ((await runningMigration(vm))?.id === running.id) await delay(pollIntervalMs);
  const report = await readReport(running.id);
  return { id: running.id, result: report?.result ?? 'unknown', report };
}
