/**
 * What happens when a migration fails: the guest is made to run on the source if it has not been asked to run on
 * the destination; otherwise the destination is asked what became of it, and what cannot be found out is not guessed.
 */
import { call } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { toVmmigError, VmmigError } from './errors.js';
import { addressOf } from './locate.js';
import type { MigrationReport, PhaseName } from './report.js';
import { openSide, type Side } from './sides.js';
import type { Teleport } from './teleport.js';

const rollbackTimeoutMs = 20_000;
const reconnectTimeoutMs = 10_000;

export async function abandon(migration: Teleport, thrown: unknown): Promise<MigrationReport> {
  const { recorder, journal, commit } = migration;
  const phase = recorder.failedPhase ?? recorder.phase;
  await journal.write('rollback', { phase, commit, error: String(thrown) });
  if (commit === 'done') return await releaseLater(migration, thrown);
  if (commit === 'asked') return await resolveCommit(migration, thrown, phase);
  return await rollBack(migration, thrown, phase);
}

/** The guest has moved; only the source's remains could not be removed. */
async function releaseLater({ recorder }: Teleport, thrown: unknown): Promise<MigrationReport> {
  const { message } = toVmmigError(thrown);
  recorder.notice(
    'warn',
    'VMMIG_SOURCE_NOT_RELEASED',
    `the guest runs on the destination, but its paused remains on the source could not be ended: ${message}`,
  );
  return await recorder.finish('moved', 'destination', null);
}

/** The destination was asked to let the guest run, and its answer is missing, or was no. */
async function resolveCommit(migration: Teleport, thrown: unknown, phase: PhaseName | null): Promise<MigrationReport> {
  const { recorder, intent } = migration;
  const error = toVmmigError(thrown, { phase, vmLocation: 'unknown' });
  const { destinationProcess: process } = migration;
  const outcome = await withSide(migration, 'destination', (side) =>
    call(side.rpc, 'destination.resolve', { ...addressOf(intent.guest), process }, { timeoutMs: rollbackTimeoutMs }),
  );
  if (outcome === 'running') {
    await withSide(migration, 'source', (side) =>
      call(side.rpc, 'source.release', addressOf(intent.guest), { timeoutMs: rollbackTimeoutMs }),
    );
    return await recorder.finish('moved', 'destination', null);
  }
  if (outcome !== 'ended') {
    const message = `${error.message}. Whether ${migration.request.vm} runs on ${intent.to.name} is not known; it is kept paused on the source`;
    const unknown = new VmmigError(error.code, message, { phase, vmLocation: 'unknown', cause: thrown });
    return await recorder.finish('unknown', 'unknown', unknown);
  }
  return await rollBack(migration, thrown, phase);
}

async function rollBack(migration: Teleport, thrown: unknown, phase: PhaseName | null): Promise<MigrationReport> {
  const { recorder, intent } = migration;
  const error = toVmmigError(thrown, { phase, vmLocation: 'source' });
  const isStarted = phase !== 'preflight';
  const [source] = isStarted
    ? await Promise.all([
        withSide(migration, 'source', (side) =>
          call(side.rpc, 'source.rollback', addressOf(intent.guest), { timeoutMs: rollbackTimeoutMs }),
        ),
        endDestination(migration),
      ])
    : [{ running: true }];
  if (source === null || !source.running)
    recorder.notice(
      'warn',
      'VMMIG_SOURCE_UNCONFIRMED',
      `${migration.request.vm} was not let run on ${intent.to.name}; that it runs on the source could not be confirmed`,
    );
  return await recorder.finish(error.code === 'VMMIG_CANCELLED' ? 'cancelled' : 'failed', 'source', error);
}

/** @returns null when it could not be made sure of */
function endDestination(migration: Teleport): Promise<null | true> {
  const params = {
    migrationId: migration.id,
    runDir: migration.intent.to.runDir,
    process: migration.destinationProcess,
  };
  return withSide(migration, 'destination', async (side) => {
    await call(side.rpc, 'destination.rollback', params, { timeoutMs: rollbackTimeoutMs });
    return true as const;
  });
}

/**
 * Does something on a host: over the session there is, or, when that was lost, over a new one.
 * @returns null when the host cannot be reached, or fails to do it
 */
async function withSide<T>(
  { sides, intent, request }: Teleport,
  which: 'source' | 'destination',
  work: (side: Side) => Promise<T>,
): Promise<T | null> {
  const present = sides[which];
  if (present !== null) {
    try {
      return await work(present);
    } catch {
      // The service may have been killed while its host is well.
      await present[Symbol.asyncDispose]();
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
