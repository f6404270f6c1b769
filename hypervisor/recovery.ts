/** A QEMU whose post-copy stream broke after the guest had begun to run, from the view of who brings another stream. */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { QmpClient, QmpCommandError, type QmpError } from '../qmp/index.js';
import { HypervisorError } from './errors.js';
import type { ProcessId } from './inspection.js';
import { isRunning } from './process.js';

const pollMs = 50;
const monitorTimeoutMs = 2_000;

export interface RecoveryOptions {
  readonly process: ProcessId;
  readonly qmpPath: string;
  /** Where it is to listen. */
  readonly socketPath: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Resolves when QEMU listens for another stream, as its guard has told it to (see `RecoveryGuard`), or, where that is
 * gone, this has; or when it needs none: `complete`. A QEMU whose main loop waits for memory cannot be asked anything.
 *
 * @throws HypervisorError VMMIG_DESTINATION_RECOVER
 */
export async function untilRecoverable(options: RecoveryOptions): Promise<'listening' | 'complete'> {
  const { process, qmpPath, socketPath, timeoutMs, signal } = options;
  const deadline = Date.now() + timeoutMs;
  let reason = 'its monitor does not answer';
  for (;;) {
    signal?.throwIfAborted();
    if (await isSocket(socketPath)) return 'listening';
    if (Date.now() > deadline) break;
    if (!(await isRunning(process))) {
      reason = 'it has ended';
      break;
    }
    try {
      if ((await askToListen(qmpPath, socketPath)) === 'complete') return 'complete';
    } catch (cause) {
      reason = cause instanceof QmpCommandError ? cause.desc : (cause as QmpError).message;
    }
    await delay(pollMs);
  }
  throw new HypervisorError('VMMIG_DESTINATION_RECOVER', `QEMU does not take another migration stream: ${reason}`);
}

async function askToListen(qmpPath: string, socketPath: string): Promise<'listening' | 'complete'> {
  await using qmp = await QmpClient.connect({ path: qmpPath }, { timeoutMs: monitorTimeoutMs });
  try {
    await qmp.execute('migrate-recover', { uri: `unix:${socketPath}` }, { oob: true, timeoutMs: monitorTimeoutMs });
    return 'listening';
  } catch (refusal) {
    const { status } = await qmp.execute('query-migrate', {}, { timeoutMs: monitorTimeoutMs });
    if (status === 'completed' || status === undefined) return 'complete';
    throw refusal;
  }
}

async function isSocket(path: string): Promise<boolean> {
  return await stat(path).then(
    (status) => status.isSocket(),
    () => false,
  );
}
