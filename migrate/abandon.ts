/**
 * What happens when a migration fails: the guest is made to run on the source if it has not been asked to run on
 * the destination; otherwise the destination is asked what became of it, and what cannot be found out is not guessed.
 */
import { call, type Params, type StartedProcess } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { RemoteError } from '../hosts/rpc.js';
import { toVmmigError, VmmigError } from './errors.js';
import type { Journal } from './journal.js';
import type { Intent, Sides } from './prepared.js';
import type { Recorder } from './recorder.js';
import type { MigrationReport, PhaseName } from './report.js';
import type { MigrateRequest } from './requests.js';
import { openSide, type Side } from './sides.js';

const rollbackTimeoutMs = 20_000;
const reconnectTimeoutMs = 10_000;

/** A migration that failed, as far as it came. */
export interface AbandonedMigration {
  readonly id: string;
  readonly intent: Intent;
  readonly request: MigrateRequest;
  readonly recorder: Recorder;
  readonly journal: Journal;
  /** Replaced when a session has to be opened anew. */
  readonly sides: Sides;
  /** From `asked` on the source must not resume by itself. */
  readonly commit: 'before' | 'asked' | 'done';
  /** The source keeps the guest paused until it is told otherwise. */
  readonly isHeld: boolean;
  readonly destinationProcess: StartedProcess | null;
  /** What a service on a host needs in order to find the guest and this migration's files. */
  directoryOn(side: Side): Params<'source.release'>;
}

export async function abandon(migration: AbandonedMigration, thrown: unknown): Promise<MigrationReport> {
  const { recorder, journal, commit } = migration;
  const phase = recorder.failedPhase ?? recorder.phase;
  // A full disk here is no reason to leave the hosts as they are.
  await journal.write('rollback', { phase, commit, error: String(thrown) }).catch(() => {});
  if (commit === 'done') return await releaseLater(migration, thrown);
  if (commit === 'asked') return await resolveCommit(migration, thrown, phase);
  return await rollBack(migration, thrown, phase);
}

/** The guest runs on the destination. The source's remains are ended if that can be done. */
async function releaseLater(migration: AbandonedMigration, thrown: unknown): Promise<MigrationReport> {
  const released = await withSide(migration, 'source', async (side) => {
    await call(side.rpc, 'source.release', migration.directoryOn(side), { timeoutMs: rollbackTimeoutMs });
    return true as const;
  });
  if (released === null)
    migration.recorder.notice(
      'warn',
      'VMMIG_SOURCE_NOT_RELEASED',
      `the guest runs on the destination, but its paused remains on the source could not be ended: ${toVmmigError(thrown).message}`,
    );
  return await migration.recorder.finish('moved', 'destination', null);
}

/** The destination was asked to let the guest run, and its answer is missing, or was no. */
async function resolveCommit(
  migration: AbandonedMigration,
  thrown: unknown,
  phase: PhaseName | null,
): Promise<MigrationReport> {
  const { destinationProcess: process } = migration;
  const bootId = process?.bootId ?? null;
  // Only QEMU's own refusal ends it before the answer: then there is nothing left to ask.
  if (thrown instanceof RemoteError && thrown.code === 'VMMIG_RESUME') return await rollBack(migration, thrown, phase);
  const outcome = await withSide(migration, 'destination', (side) =>
    call(
      side.rpc,
      'destination.resolve',
      { ...migration.directoryOn(side), process, bootId },
      { timeoutMs: rollbackTimeoutMs },
    ),
  );
  if (outcome === 'running') return await releaseLater(migration, thrown);
  if (outcome === 'ended') return await rollBack(migration, thrown, phase);
  return await leaveUnknown(migration, thrown, phase);
}

/** Neither side may be touched: the guest could run twice, or go on with memory that its disks no longer belong to. */
async function leaveUnknown(
  { recorder, request, intent }: AbandonedMigration,
  cause: unknown,
  phase: PhaseName | null,
): Promise<MigrationReport> {
  const { code, message, retryable } = toVmmigError(cause);
  const text = `${message}. Whether ${request.vm} runs on ${intent.to.name} is not known; it is kept paused on the source`;
  const error = new VmmigError(code, text, { phase, vmLocation: 'unknown', retryable, cause });
  return await recorder.finish('unknown', 'unknown', error);
}

async function rollBack(
  migration: AbandonedMigration,
  thrown: unknown,
  phase: PhaseName | null,
): Promise<MigrationReport> {
  const { recorder, intent, request, isHeld } = migration;
  const error = toVmmigError(thrown, { phase, vmLocation: 'source' });
  const isStarted = phase !== 'preflight';
  const [source] = isStarted
    ? await Promise.all([
        withSide(migration, 'source', (side) =>
          call(side.rpc, 'source.rollback', migration.directoryOn(side), { timeoutMs: rollbackTimeoutMs }),
        ),
        endDestination(migration),
      ])
    : [{ running: true }];
  if (source?.running !== true) {
    const text = `${request.vm} was not let run on ${intent.to.name}; that it runs on the source could not be confirmed`;
    recorder.notice('warn', 'VMMIG_SOURCE_UNCONFIRMED', text);
    // A source that was not told to hold lets the guest run by itself; one that was, waits to be told.
    if (isHeld) return await recorder.finish('unknown', 'unknown', error);
  }
  return await recorder.finish(error.code === 'VMMIG_CANCELLED' ? 'cancelled' : 'failed', 'source', error);
}

/** @returns null when it could not be made sure of */
function endDestination(migration: AbandonedMigration): Promise<null | true> {
  const params = {
    migrationId: migration.id,
    runDir: migration.intent.to.runDir,
    process: migration.destinationProcess,
  };
  return withSide(migration, 'destination', async (side) => {
    const { libvirt } = migration.directoryOn(side);
    const address = libvirt === undefined ? {} : { libvirt };
    await call(side.rpc, 'destination.rollback', { ...params, ...address }, { timeoutMs: rollbackTimeoutMs });
    return true as const;
  });
}

/**
 * Does something on a host: over the session there is, or, when that was lost, over a new one.
 * @returns null when the host cannot be reached, or fails to do it
 */
export async function withSide<T>(
  { sides, intent, request, commit }: AbandonedMigration,
  which: 'source' | 'destination',
  work: (side: Side) => Promise<T>,
): Promise<T | null> {
  const present = sides[which];
  if (present !== null) {
    try {
      return await work(present);
    } catch {
      // The service may have been killed while its host is well.
      await (commit === 'before' ? present[Symbol.asyncDispose]() : present.leave());
      sides[which] = null;
    }
  }
  const host: InventoryHost | undefined =
    which === 'destination'
      ? intent.to
      : (present?.host ?? intent.inventory.hosts.get(request.from ?? intent.guest.host));
  if (host === undefined) return null;
  try {
    const side = await openSide(host, AbortSignal.timeout(reconnectTimeoutMs));
    sides[which] = side;
    return await work(side);
  } catch {
    return null;
  }
}
