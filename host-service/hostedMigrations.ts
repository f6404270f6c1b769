/** The migrations that a host takes part in, from its ledgers and from the services that are at work on them. */

import { readLedgers } from './commit/index.js';
import { connectControl } from './control.js';
import { bootId } from './newLedger.js';
import type { HostedMigration } from './protocol.js';

export async function hostedMigrations(runDir: string): Promise<HostedMigration[]> {
  const { ledgers } = await readLedgers(runDir);
  const boot = await bootId();
  return await Promise.all(
    ledgers.map(async ({ link: _, ...ledger }) => {
      const control = await connectControl(runDir, ledger.migrationId, ledger.role);
      const status = control === null ? null : await control.request<never>('status').catch(() => null);
      await control?.[Symbol.asyncDispose]();
      return {
        ledger,
        isFromBefore: ledger.bootId !== boot,
        source: ledger.role === 'source' ? status : null,
        destination: ledger.role === 'destination' ? status : null,
      };
    }),
  );
}
