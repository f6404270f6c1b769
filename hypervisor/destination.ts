/** What is done to the destination's QEMU, from listening for the migration stream to letting the guest run. */
import { type QmpClient, QmpCommandError, QmpInterruptedError } from '../qmp/index.js';
import type { RecoveryGuard, RecoveryPaths } from './direct/recoveryGuard.js';
import { HypervisorError } from './errors.js';
import type { ProcessId } from './inspection.js';
import { applyMigrationSettings, type MigrationSettings, type PreviousSettings } from './migrationSettings.js';
import { waitForMigrationEnd } from './migrationStatus.js';

/** A QEMU that was started to take a guest in. Disposing of it ends it, unless it was released. */
export interface DestinationGuest extends ProcessId, AsyncDisposable {
  readonly qmp: QmpClient;
  /** Lets the process outlive this one. Call it before the guest may run. */
  release(): void;
  /** Ends the process and removes what it left behind. Does nothing after `release`. */
  kill(): Promise<void>;
  /**
   * Should this process end once it has been decided that the guest runs here, and before what is returned is disposed
   * of, QEMU is made to listen for another migration stream.
   */
  guardRecovery(paths: RecoveryPaths): RecoveryGuard;
  /** The last lines of what QEMU printed. */
  logTail(): Promise<string>;
}

interface Limits {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes a QEMU that was started with `-incoming defer` listen at `uri` (`unix:PATH`). The images stay the source's until
 * the guest is let run: nothing has to be undone before.
 * @returns the settings as they were, to be restored when the guest has been loaded
 * @throws HypervisorError VMMIG_DESTINATION_LOAD
 */
export async function acceptMigration(
  guest: DestinationGuest,
  uri: string,
  options: Limits & { readonly settings?: MigrationSettings } = {},
): Promise<PreviousSettings> {
  const { settings = {}, signal } = options;
  const { qmp } = guest;
  const capabilities = { events: true, 'late-block-activate': true, ...settings.capabilities };
  try {
    const previous = await applyMigrationSettings(qmp, { ...settings, capabilities }, { signal });
    const schema = await qmp.schema();
    const staysOnError = schema.supports('migrate-incoming', 'exit-on-error');
    await qmp.execute('migrate-incoming', staysOnError ? { uri, 'exit-on-error': false } : { uri }, { signal });
    return previous;
  } catch (cause) {
    throw await loadError(guest, 'QEMU does not listen for the guest', cause);
  }
}

/**
 * Resolves when the guest has been loaded, paused.
 * @throws HypervisorError VMMIG_DESTINATION_LOAD with QEMU's own words
 */
export async function waitUntilLoaded(guest: DestinationGuest, limits: Limits = {}): Promise<void> {
  try {
    const state = await waitForMigrationEnd(guest.qmp, { ...limits, listening: true });
    if (state.status === 'completed') return;
    // What exactly was wrong with the stream is in the log only.
    const said = [state.error, await guest.logTail()].filter(Boolean).join('\n');
    throw new HypervisorError('VMMIG_DESTINATION_LOAD', `the guest could not be loaded (${state.status}): ${said}`);
  } catch (cause) {
    throw await loadError(guest, 'the guest could not be loaded', cause);
  }
}

/**
 * Lets the loaded guest run: from here on it runs on the destination. Takes the images from the source.
 * @throws HypervisorError VMMIG_RESUME when the guest does not run afterwards
 */
export async function letRun(guest: DestinationGuest, limits: Limits = {}): Promise<void> {
  try {
    await guest.qmp.execute('cont', {}, limits);
  } catch (cause) {
    if (!(cause instanceof QmpCommandError)) throw cause;
    throw new HypervisorError('VMMIG_RESUME', `QEMU cannot let the guest run: ${cause.desc}`, { cause });
  }
  const { running, status } = await guest.qmp.execute('query-status', {}, limits);
  if (!running) throw new HypervisorError('VMMIG_RESUME', `the guest does not run: QEMU calls it "${status}"`);
}

/** QEMU before 9.1 exits when loading fails; why, it says on its way out. */
async function loadError(guest: DestinationGuest, what: string, cause: unknown): Promise<unknown> {
  const answered = cause instanceof QmpCommandError;
  const gone = cause instanceof QmpInterruptedError && cause.reason === 'disconnect';
  if (!answered && !gone) return cause;
  const said = answered ? cause.desc : `QEMU ended: ${await guest.logTail()}`;
  return new HypervisorError('VMMIG_DESTINATION_LOAD', `${what}: ${said}`, { cause });
}
