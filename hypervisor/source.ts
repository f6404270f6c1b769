/**
 * What is done to the source's QEMU: start, cancel, resume, quit. The order is the policy's; what is held here is that no
 * verb leaves the guest in doubt: each ends with a state that QEMU itself has confirmed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { QmpCommandError, QmpError } from '../qmp/index.js';
import { HypervisorError } from './errors.js';
import type { ProcessId } from './inspection.js';
import { type MigrationState, waitForMigrationEnd } from './migrationStatus.js';
import { sendSignal, waitForEnd } from './process.js';
import type { QmpMonitor } from './qmpMonitor.js';

const DEFAULT_CANCEL_TIMEOUT_MS = 10_000;
const DEFAULT_QUIT_STEP_TIMEOUT_MS = 5_000;
/** QEMU takes up the guest again a moment after it has called the migration failed or cancelled. */
const RESUME_GRACE_MS = 200;
const RESUME_POLL_INTERVAL_MS = 10;

interface Limits {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Starts migrating to `uri` (`unix:PATH`). Returns when the migration thread is on its way; what becomes of it is told by
 * `migrationState` and `waitForMigrationEnd`.
 * @throws HypervisorError VMMIG_SOURCE_MIGRATION when QEMU refuses
 */
export async function startMigration(qmp: QmpMonitor, uri: string, limits: Limits = {}): Promise<void> {
  try {
    await qmp.execute('migrate', { uri }, limits);
  } catch (cause) {
    if (!(cause instanceof QmpCommandError)) throw cause;
    throw new HypervisorError('VMMIG_SOURCE_MIGRATION', `QEMU refuses to migrate: ${cause.desc}`, { cause });
  }
}

/**
 * Cancels the migration and waits for its end. A migration that was just completed cannot be cancelled any more: look at
 * the `status`, and see `resumeAfterFailure`.
 * @param wasRunning whether the guest ran before the migration; then it runs again afterwards
 * @throws HypervisorError VMMIG_SOURCE_MIGRATION when it does not end in time, VMMIG_RESUME when the guest does not run
 */
export async function cancelMigration(
  qmp: QmpMonitor,
  options: Limits & { readonly wasRunning: boolean; readonly timeoutMs?: number },
): Promise<MigrationState> {
  const { wasRunning, timeoutMs = DEFAULT_CANCEL_TIMEOUT_MS, signal } = options;
  const deadline = AbortSignal.timeout(timeoutMs);
  const limits = { signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]) };
  try {
    await qmp.execute('migrate_cancel', {}, limits);
    const state = await waitForMigrationEnd(qmp, limits);
    if (state.status !== 'completed') await resumeAfterFailure(qmp, { wasRunning, ...limits });
    return state;
  } catch (cause) {
    if (!deadline.aborted) throw cause;
    const message = `the migration is not cancelled after ${timeoutMs} ms`;
    throw new HypervisorError('VMMIG_SOURCE_MIGRATION', message, { cause });
  }
}

/**
 * Lets the guest run again on the source after a migration that failed, was cancelled or, completed in QEMU's eyes, was
 * given up. Does nothing when it runs already or did not run before. Never for a guest that may run on the destination.
 * @throws HypervisorError VMMIG_RESUME when the guest does not run afterwards
 */
export async function resumeAfterFailure(
  qmp: QmpMonitor,
  options: Limits & { readonly wasRunning: boolean },
): Promise<void> {
  const { wasRunning, signal } = options;
  if (!wasRunning) return;
  await waitForMigrationEnd(qmp, { signal });
  if (await runsSoon(qmp, signal)) return;
  try {
    await qmp.execute('cont', {}, { signal });
  } catch (cause) {
    if (!(cause instanceof QmpCommandError)) throw cause;
    throw new HypervisorError('VMMIG_RESUME', `QEMU cannot let the guest run again: ${cause.desc}`, { cause });
  }
  const { running, status } = await qmp.execute('query-status', {}, { signal });
  if (!running)
    throw new HypervisorError('VMMIG_RESUME', `the guest does not run on the source: QEMU calls it "${status}"`);
}

/** Whether QEMU takes up the guest by itself. */
async function runsSoon(qmp: QmpMonitor, signal?: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + RESUME_GRACE_MS;
  for (;;) {
    const { running, status } = await qmp.execute('query-status', {}, { signal });
    if (running || status !== 'finish-migrate' || performance.now() >= deadline) return running;
    await delay(RESUME_POLL_INTERVAL_MS, undefined, { signal });
  }
}

/**
 * Ends the source's QEMU, whose guest runs elsewhere by now: `quit`, then SIGTERM, then SIGKILL, each with
 * `stepTimeoutMs` to take effect.
 * @param qmp the monitor, or null when it is lost
 * @throws HypervisorError VMMIG_PROCESS_END when the guest runs here, or nothing ends the process
 */
export async function quitSource(
  qmp: QmpMonitor | null,
  process: ProcessId,
  options: Limits & { readonly stepTimeoutMs?: number } = {},
): Promise<void> {
  const { stepTimeoutMs = DEFAULT_QUIT_STEP_TIMEOUT_MS, signal } = options;
  if (qmp !== null) {
    const limits = { signal, timeoutMs: stepTimeoutMs };
    const status = await qmp.execute('query-status', {}, limits).catch(unlessAborted(signal));
    if (status?.running) {
      throw new HypervisorError('VMMIG_PROCESS_END', `the guest runs in process ${process.pid}: it is not ended`);
    }
    // The monitor may go away before it has answered.
    await qmp.execute('quit', {}, limits).catch(unlessAborted(signal));
  }
  if (await waitForEnd(process, qmp === null ? 0 : stepTimeoutMs, signal)) return;
  await endProcess(process, { signal, stepTimeoutMs });
}

/**
 * SIGTERM, then SIGKILL.
 * @throws HypervisorError VMMIG_PROCESS_END
 */
export async function endProcess(
  process: ProcessId,
  options: Limits & { readonly stepTimeoutMs?: number } = {},
): Promise<void> {
  const { stepTimeoutMs = DEFAULT_QUIT_STEP_TIMEOUT_MS, signal } = options;
  for (const name of ['SIGTERM', 'SIGKILL'] as const) {
    await sendSignal(process, name);
    if (await waitForEnd(process, stepTimeoutMs, signal)) return;
  }
  throw new HypervisorError('VMMIG_PROCESS_END', `process ${process.pid} does not end, not even by SIGKILL`);
}

/** A monitor that is gone or stuck is no obstacle to ending its process. */
function unlessAborted(signal: AbortSignal | undefined): (error: unknown) => undefined {
  return (error) => {
    if (signal?.aborted || !(error instanceof QmpError)) throw error;
    return undefined;
  };
}
