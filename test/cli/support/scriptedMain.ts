/**
 * `vmmig` as it is, except that its migrations are scripted: for what a real one does not do on demand, such as
 * standing still right before the commit point. SCRIPT says what happens:
 *
 *     course      the whole course of a migration, at ten events a second of its own time, PACE times as fast
 *     hang        begins, then stands still until cancelled, and reports that
 *     committed   gets past the commit point, stands still for RELEASE_MS, and reports success
 *     stuck       begins, and does not even answer cancellation
 *     no-route    throws what an unreachable host throws
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Policy } from '../../../cli/policy.js';
import { run } from '../../../cli/run.js';
import { type Hooks, type MigrationReport, VmmigError } from '../../../migrate/index.js';
import { course, phaseEvent, scriptedReport, startEvent } from './scriptedMigration.js';

const script = process.env.SCRIPT ?? 'course';

async function teleport(_request: unknown, { onProgress, signal }: Hooks): Promise<MigrationReport> {
  const tell = onProgress ?? (() => {});
  if (script === 'no-route') throw new VmmigError('VMMIG_SSH_CONNECT', 'hostB: no route to host');
  if (script === 'course') {
    let nowMs = 0;
    for (const event of course()) {
      if ('atMs' in event && event.atMs > nowMs) {
        await sleep((event.atMs - nowMs) / Number(process.env.PACE ?? 1));
        nowMs = event.atMs;
      }
      tell(event);
    }
    return scriptedReport();
  }
  tell(startEvent);
  tell(phaseEvent('precopy', 'begin', 10));
  if (script === 'committed') {
    tell(phaseEvent('verify', 'begin', 20));
    tell(phaseEvent('verify', 'end', 30));
    tell(phaseEvent('release source', 'begin', 30));
    await sleep(Number(process.env.RELEASE_MS ?? 1000));
    if (signal?.aborted) throw new Error('aborted after the commit point');
    const report = scriptedReport();
    tell({ type: 'end', report });
    return report;
  }
  const alive = setInterval(() => {}, 1000);
  if (script === 'stuck') await new Promise(() => {});
  await new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve()));
  clearInterval(alive);
  const report = scriptedReport({
    result: 'cancelled',
    vmLocation: 'source',
    error: { code: 'VMMIG_CANCELLED', message: 'cancelled by the operator', phase: 'precopy', retryable: true },
  });
  tell({ type: 'end', report });
  return report;
}

const policy = { teleport } as unknown as Policy;
process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
  loadPolicy: async () => policy,
});
