/** The migrations that a host takes part in, from its ledgers and from the services that are at work on them. */

import { type Ledger, LedgerError, readDecision, readLedgers } from './commit/index.js';
import { connectControl } from './control.js';
import { bootId } from './newLedger.js';
import type { HostedMigration } from './protocol.js';

/** A service that is busy answers within this, or is told to be. */
const statusTimeoutMs = 3_000;

export async function hostedMigrations(runDir: string): Promise<HostedMigration[]> {
  const { ledgers } = await readLedgers(runDir);
  const boot = await bootId();
  return await Promise.all(
    ledgers.map(async ({ link: _, memory, ...ledger }) => {
      const control = await connectControl(runDir, ledger.migrationId, ledger.role);
      const status =
        control === null
          ? null
          : await control.request<never>('status', {}, { timeoutMs: statusTimeoutMs }).catch(() => null);
      await control?.[Symbol.asyncDispose]();
      return {
        ledger,
        isFromBefore: ledger.bootId !== boot,
        isReplaceable: (ledger.role === 'source' ? memory : ledger.takeOver) !== undefined,
        decision: await decisionOf(runDir, ledger),
        isBusy: control !== null && status === null,
        source: ledger.mode === 'switch' && ledger.role === 'source' ? status : null,
        destination: ledger.mode === 'switch' && ledger.role === 'destination' ? status : null,
        teleport: ledger.mode === 'teleport' ? status : null,
      };
    }),
  );
}

/** One that cannot be read counts as the one that is harder to take back. */
async function decisionOf(
  runDir: string,
  { migrationId, role }: Pick<Ledger, 'migrationId' | 'role'>,
): Promise<HostedMigration['decision']> {
  try {
    return await readDecision(runDir, migrationId, role);
  } catch (thrown) {
    if (!(thrown instanceof LedgerError)) throw thrown;
    return role === 'source' ? 'held' : 'run';
  }
}
