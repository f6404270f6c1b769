/**
 * What a host has decided at the commit point, once and for good: the source `held` (the guest may go) or `kept`, the
 * destination `run` or `end`. Of several services that decide at once the first one wins, and all learn what stands.
 */
import { randomUUID } from 'node:crypto';
import { linkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LedgerError } from './ledgerError.js';
import { readGuarded, syncDirectoryNow, writeSyncedNow } from './ledgerFiles.js';

const decisions = { source: ['held', 'kept'], destination: ['run', 'end'] } as const;

export type Role = keyof typeof decisions;
export type Decision<R extends Role> = (typeof decisions)[R][number];

export const decisionPath = (runDir: string, migrationId: string, role: Role) =>
  join(runDir, migrationId, `decision-${role}`);

/**
 * Decides, unless that has been done; the directory is there, as the ledger is.
 * @returns what stands, on disk
 * @throws LedgerError VMMIG_LEDGER_WRITE: not decided, as far as this caller may act on it; VMMIG_LEDGER_INVALID
 */
export async function decide<R extends Role>(
  runDir: string,
  migrationId: string,
  role: R,
  decision: Decision<R>,
): Promise<Decision<R>> {
  const path = decisionPath(runDir, migrationId, role);
  const draft = `${path}.${randomUUID()}`;
  try {
    // Not asynchronously: the guest stands still, and turns of a busy process take longer than a run directory does.
    writeSyncedNow(draft, `${decision}\n`);
    linkUnlessThere(draft, path);
    syncDirectoryNow(join(runDir, migrationId));
  } catch (cause) {
    throw new LedgerError('VMMIG_LEDGER_WRITE', `cannot write ${path}: ${(cause as Error).message}`, { cause });
  } finally {
    rmSync(draft, { force: true });
  }
  const stands = await readDecision(runDir, migrationId, role);
  if (stands === null) throw new LedgerError('VMMIG_LEDGER_WRITE', `${path} was removed while it was written`);
  return stands;
}

/** A link is made whole, and only where there is nothing yet. */
function linkUnlessThere(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown;
  }
}

/**
 * What was decided; null when nothing was.
 * @throws LedgerError VMMIG_LEDGER_INVALID: something was, and it cannot be told what
 */
export async function readDecision<R extends Role>(
  runDir: string,
  migrationId: string,
  role: R,
): Promise<Decision<R> | null> {
  const path = decisionPath(runDir, migrationId, role);
  const content = await readGuarded(path);
  if (content === null) return null;
  const known: readonly Decision<R>[] = decisions[role];
  const found = known.find((decision) => content === `${decision}\n`);
  if (found === undefined) throw new LedgerError('VMMIG_LEDGER_INVALID', `${path} holds no decision`);
  return found;
}
