/**
 * What happens when a migration fails: both hosts are asked where the guest is, and it is finished either way. What cannot
 * be found out is not guessed.
 */
import { call, type Params, type StartedProcess } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { toVmmigError, VmmigError } from './errors.js';
import { guestEnded } from './guestEnded.js';
import type { Journal } from './journal.js';
import { outcome } from './outcome.js';
import type { Intent, Sides } from './prepared.js';
import type { Recorder } from './recorder.js';
import type { MigrationReport, PhaseName } from './report.js';
import type { MigrateRequest } from './requests.js';
import { type End, resolve } from './resolve.js';
import { openSide, type Side } from './sides.js';

const askTimeoutMs = 20_000;
const reconnectTimeoutMs = 10_000;
const limits = { timeoutMs: askTimeoutMs };

/** A migration that failed, as far as it came. */
export interface AbandonedMigration {
  readonly id: string;
  readonly intent: Intent;
  readonly request: MigrateRequest;
  readonly recorder: Recorder;
  readonly journal: Journal;
  /** Replaced when a session has to be opened anew. */
  readonly sides: Sides;
  /** QEMU may have begun to migrate. */
  readonly isStarted: boolean;
  /** From `asked` on the source must not resume by itself. */
  readonly commit: 'before' | 'asked' | 'done';
  /** The source keeps the guest paused until it is told otherwise. */
  readonly isHeld: boolean;
  readonly destinationProcess: StartedProcess | null;
  /** What a service on a host finds the guest and this migration by. */
  migrationOn(host: InventoryHost): Params<'source.pulled'>;
}

export async function abandon(migration: AbandonedMigration, thrown: unknown): Promise<MigrationReport> {
  const { recorder, journal, commit, isStarted } = migration;
  const phase = recorder.failedPhase ?? recorder.phase;
  // A full disk here is no reason to leave the hosts as they are.
  await journal.write('rollback', { phase, commit, error: String(thrown) }).catch(() => {});
  if (commit === 'done') return await releaseLater(migration, thrown);
  return await finish(migration, thrown, phase, isStarted ? await findOut(migration) : 'stayed');
}

/** Asks both hosts where the guest is, and has it released or resumed at the source accordingly. */
export async function findOut(migration: AbandonedMigration): Promise<End> {
  const { destinationProcess } = migration;
  return await resolve({
    postToSource: async (event) => {
      const answer = await withSide(migration, 'source', ({ host, rpc }) =>
        call(rpc, 'source.post', { ...migration.migrationOn(host), event }, limits),
      );
      return answered(answer, 'source');
    },
    askDestination: async () => {
      const bootId = destinationProcess?.bootId ?? null;
      const answer = await withSide(migration, 'destination', ({ host, rpc }) =>
        call(rpc, 'destination.ask', { ...migration.migrationOn(host), bootId }, limits),
      );
      return answered(answer, 'destination').state;
    },
  });
}

/** The source has let go of the guest: the destination need not remember any more. */
export async function conclude(migration: AbandonedMigration): Promise<void> {
  const told = await withSide(migration, 'destination', async ({ host, rpc }) => {
    await call(rpc, 'destination.conclude', migration.migrationOn(host), limits);
    return true;
  });
  if (told) return;
  const { vm } = migration.request;
  const to = migration.intent.to.name;
  const text = `${vm} runs on ${to}, which could not be told that the source has let go of it: "vmmig recover ${vm}" removes what ${to} has noted`;
  migration.recorder.notice('warn', 'VMMIG_DESTINATION_NOT_TOLD', text);
}

/** The guest runs on the destination. The source's remains are ended if that can be done. */
async function releaseLater(migration: AbandonedMigration, thrown: unknown): Promise<MigrationReport> {
  const released = await withSide(migration, 'source', ({ host, rpc }) =>
    call(rpc, 'source.post', { ...migration.migrationOn(host), event: 'release' }, limits),
  );
  return await finishMoved(migration, thrown, released?.state === 'released');
}

async function finishMoved(
  migration: AbandonedMigration,
  thrown: unknown,
  isReleased: boolean,
): Promise<MigrationReport> {
  if (isReleased) await conclude(migration);
  else
    migration.recorder.notice(
      'warn',
      'VMMIG_SOURCE_NOT_RELEASED',
      `the guest runs on the destination, but its paused remains on the source could not be ended: ${toVmmigError(thrown).message}`,
    );
  return await migration.recorder.finish('moved', 'destination', null);
}

async function finish(
  migration: AbandonedMigration,
  thrown: unknown,
  phase: PhaseName | null,
  end: End,
): Promise<MigrationReport> {
  const { recorder, request, intent, isHeld } = migration;
  const cancelled = toVmmigError(thrown).code === 'VMMIG_CANCELLED';
  const { result, vmLocation } = outcome({ end, cancelled, mayBeHeld: isHeld, complete: true });
  if (vmLocation === 'destination') return await finishMoved(migration, thrown, end === 'moved');
  if (end === 'ended')
    return await recorder.finish(result, vmLocation, guestEnded(request.vm, sourceOf(migration), thrown, phase));
  if (end === 'unconfirmed' || (end === 'unknown' && vmLocation === 'source')) {
    const text = `${request.vm} was not let run on ${intent.to.name}; that it runs on the source could not be confirmed`;
    recorder.notice('warn', 'VMMIG_SOURCE_UNCONFIRMED', text);
  }
  const error =
    end === 'unknown' && vmLocation === 'unknown'
      ? unresolved(migration, thrown, phase)
      : toVmmigError(thrown, { phase, vmLocation });
  return await recorder.finish(result, vmLocation, error);
}

/** Neither side may be touched: the guest could run twice, or go on with memory that its disks no longer belong to. */
export function unresolved(
  { request, intent }: AbandonedMigration,
  cause: unknown,
  phase: PhaseName | null,
): VmmigError {
  const { code, message, retryable } = toVmmigError(cause);
  const text = `${message}. Whether ${request.vm} runs on ${intent.to.name} is not known; it is kept paused on the source`;
  return new VmmigError(code, text, { phase, vmLocation: 'unknown', retryable, cause });
}

function sourceOf({ sides, request, intent }: AbandonedMigration): string {
  return sides.source?.host.name ?? request.from ?? intent.guest.host ?? 'the source';
}

function answered<T>(answer: T | null, host: string): T {
  if (answer === null) throw new VmmigError('VMMIG_HOST_SILENT', `the ${host} cannot be asked`);
  return answer;
}

/**
 * Does something on a host: over the session there is, or, when that was lost, over a new one.
 * @returns null when the host cannot be reached, or fails to do it
 */
async function withSide<T>(
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
