/** How far a migration is, as QEMU tells it on either side. */
import type { MigrationStatus } from '../qmp/index.js';
import type { QmpMonitor } from './qmpMonitor.js';

export interface MigrationState {
  readonly status: MigrationStatus;
  /** Nothing will change any more. */
  readonly final: boolean;
  /** QEMU's own words about a failure. */
  readonly error: string | null;
  /** Guest memory, as the migration thread sees it; null before the first pass. */
  readonly ram: {
    readonly totalBytes: number;
    readonly remainingBytes: number;
    readonly transferredBytes: number;
    /** Bytes of memory that the guest dirties each second. */
    readonly dirtyBytesPerSecond: number;
    readonly bandwidthBps: number;
    /** Passes over memory so far. */
    readonly passes: number;
  } | null;
  readonly expectedDowntimeMs: number | null;
  readonly downtimeMs: number | null;
  /** Of the guest's processors' time, taken from it so that it writes less. */
  readonly throttlePercent: number;
}

const POLL_INTERVAL_MS = 100;

const finalStates: ReadonlySet<MigrationStatus> = new Set(['none', 'completed', 'failed', 'cancelled']);

export async function migrationState(
  qmp: QmpMonitor,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<MigrationState> {
  const info = await qmp.execute('query-migrate', {}, options);
  const status = info.status ?? 'none';
  const { ram } = info;
  return {
    status,
    final: finalStates.has(status),
    error: info['error-desc'] ?? null,
    ram:
      ram === undefined
        ? null
        : {
            totalBytes: ram.total,
            remainingBytes: ram.remaining,
            transferredBytes: ram.transferred,
            dirtyBytesPerSecond: ram['dirty-pages-rate'] * (ram['page-size'] ?? 4096),
            bandwidthBps: ram.mbps * 1e6,
            passes: ram['dirty-sync-count'],
          },
    expectedDowntimeMs: info['expected-downtime'] ?? null,
    downtimeMs: info.downtime ?? null,
    throttlePercent: info['cpu-throttle-percentage'] ?? 0,
  };
}

/**
 * Resolves when the migration has ended, well or not. Asks again from time to time: QEMU tells of changes only with the
 * capability `events`.
 * @param listening an incoming migration that nobody has connected to has not ended
 * @throws QmpInterruptedError when the monitor goes away
 */
export async function waitForMigrationEnd(
  qmp: QmpMonitor,
  options: { signal?: AbortSignal | undefined; listening?: boolean } = {},
): Promise<MigrationState> {
  const { signal, listening = false } = options;
  for (;;) {
    const changed = qmp.waitFor('MIGRATION', { signal, timeoutMs: POLL_INTERVAL_MS }).catch(() => undefined);
    const state = await migrationState(qmp, { signal });
    if (state.final && !(listening && state.status === 'none')) return state;
    await changed;
  }
}
