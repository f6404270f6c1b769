/**
 * What `recover` asks of a host, from a service that has no part in the migration: it asks the one that has, and where
 * that is gone, goes on from what is on disk and what QEMU says.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { RemoteError } from '../../hosts/rpc.js';
import {
  cancelMigration,
  endProcess,
  isRunning,
  migrationState,
  quitSource,
  resumeAfterFailure,
} from '../../hypervisor/index.js';
import { QmpClient } from '../../qmp/index.js';
import {
  type DestinationEvent,
  type DestinationState,
  decide,
  destinationFrom,
  destinationStep,
  type Ledger,
  type Role,
  readDecision,
  readLedger,
  removeLedger,
  type SourceEvent,
  type SourceState,
  sourceFrom,
  sourceStep,
} from '../commit/index.js';
import { CommitDriver } from '../commitDriver.js';
import { connectControl } from '../control.js';
import { bootId } from '../newLedger.js';
import type { GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';

export interface OrphanedMigration {
  readonly guest: GuestAddress;
  readonly runDir: string;
  readonly migrationId: string;
}

const monitorTimeoutMs = 5_000;
const undoTimeoutMs = 15_000;
/** Run states of a guest that has been loaded, or is being loaded, and has never run. */
const neverRun: ReadonlySet<string> = new Set(['inmigrate', 'prelaunch', 'paused']);

/** Hands an event to the source's side of the commit point. */
export async function postToSource(
  migration: OrphanedMigration,
  event: 'abandon' | 'release' | 'resume',
): Promise<SourceState> {
  const { runDir, migrationId } = migration;
  const atWork = await askAtWork(migration, 'source', event);
  if (atWork !== null) return atWork as SourceState;
  const decision = await readDecision(runDir, migrationId, 'source');
  const ledger = await readLedger(runDir, migrationId, 'source');
  const state = sourceFrom({ decision, guest: await lookAtSource(migration.guest, ledger) });
  const driver = new CommitDriver(state, sourceStep, async (action): Promise<SourceEvent | null> => {
    switch (action) {
      case 'writeKept':
        try {
          return (await decide(runDir, migrationId, 'source', 'kept')) === 'kept' ? 'wroteKept' : 'heldStands';
        } catch {
          return 'writeFailed';
        }
      case 'resumeGuest':
        try {
          await resumeOrphan(migration.guest);
          return 'guestResumed';
        } catch {
          return 'resumeFailed';
        }
      case 'endQemu':
        // Its memory is in a service that is gone: what the destination still needs is here and nowhere else.
        try {
          if (ledger?.phase === 'committing' || ledger?.phase === 'pulling') return 'endFailed';
          await endOrphan(migration.guest, ledger);
          return 'qemuEnded';
        } catch {
          return 'endFailed';
        }
      default:
        return null;
    }
  });
  const reached = await driver.post(event);
  if (reached === 'resumed' || reached === 'released') await removeRemains(runDir, migrationId, 'source');
  return reached;
}

/** What the source's QEMU is about. @throws ServiceError VMMIG_QEMU_SILENT when it is there and does not answer */
export async function lookAtSource(
  guest: Pick<GuestAddress, 'name' | 'qmpPath'>,
  ledger: Ledger | null,
): Promise<'running' | 'paused' | 'gone'> {
  await using qmp = await monitor(guest);
  if (qmp !== null) return (await qmp.execute('query-status')).running ? 'running' : 'paused';
  if (await hasEnded(ledger)) return 'gone';
  throw new ServiceError('VMMIG_QEMU_SILENT', `the QEMU of ${guest.name} does not answer on its monitor`);
}

/** Lets the guest of a QEMU run on that has been told to migrate. @throws when it does not */
export async function resumeOrphan(guest: Pick<GuestAddress, 'name' | 'qmpPath'>): Promise<void> {
  await using qmp = await monitor(guest);
  if (qmp === null) throw new ServiceError('VMMIG_QEMU_SILENT', `the QEMU of ${guest.name} does not answer`);
  const signal = AbortSignal.timeout(undoTimeoutMs);
  const { final } = await migrationState(qmp, { signal });
  if (!final) await cancelMigration(qmp, { wasRunning: true, signal });
  await resumeAfterFailure(qmp, { wasRunning: true, signal });
}

/** Ends a QEMU whose guest runs elsewhere. @throws when it does not end */
export async function endOrphan(guest: Pick<GuestAddress, 'qmpPath'>, ledger: Ledger | null): Promise<void> {
  await using qmp = await monitor(guest);
  if (ledger?.guest.process != null) await quitSource(qmp, ledger.guest.process);
}

/** Asks the destination's side: does the guest run there? If not, it never will. */
export async function askDestination(migration: OrphanedMigration): Promise<DestinationState> {
  const { runDir, migrationId } = migration;
  const atWork = await askAtWork(migration, 'destination', 'ask');
  if (atWork !== null) return atWork as DestinationState;
  const ledger = await readLedger(runDir, migrationId, 'destination');
  const decision = await readDecision(runDir, migrationId, 'destination');
  await using qmp = await monitor(migration.guest);
  const state = destinationFrom({
    remembers: ledger !== null && ledger.bootId === (await bootId()),
    decision,
    guest: await lookAt(qmp, ledger),
  });
  const driver = new CommitDriver(state, destinationStep, async (action): Promise<DestinationEvent | null> => {
    switch (action) {
      case 'writeEnd':
        try {
          return (await decide(runDir, migrationId, 'destination', 'end')) === 'end' ? 'wroteEnd' : 'runStands';
        } catch {
          return 'writeFailed';
        }
      case 'lookAtGuest': {
        const found = await lookAt(qmp, ledger);
        return found === 'running' ? 'guestRuns' : found === 'waiting' ? 'guestWaits' : 'guestGone';
      }
      case 'startGuest':
        try {
          await qmp!.execute('cont');
          return 'guestStarted';
        } catch {
          return 'startSilent';
        }
      case 'endQemu':
        try {
          const process = ledger?.guest.process ?? null;
          if (process !== null && (await isRunning(process))) await endProcess(process);
          return 'qemuEnded';
        } catch {
          return 'endFailed';
        }
      default:
        return null;
    }
  });
  const reached = await driver.post('ask');
  if (reached === 'ended') await removeRemains(runDir, migrationId, 'destination');
  return reached;
}

/**
 * Resolves when the service that is at work says that all of the guest's memory is on the destination; with null when it
 * has gone since, in good order.
 * @throws ServiceError VMMIG_PULL_STOPPED when it went before that
 */
export async function pulledElsewhere<T>(
  { runDir, migrationId, guest }: OrphanedMigration,
  role: Role,
  signal: AbortSignal,
): Promise<T | null> {
  const control = await connectControl(runDir, migrationId, role);
  if (control !== null) {
    await using _control = control;
    try {
      return await control.request<T>('pulled', {}, { signal });
    } catch (thrown) {
      // An error of its own is the answer; that it has ended may also be because there was nothing left to do.
      if (signal.aborted || thrown instanceof RemoteError) throw thrown;
    }
  }
  if ((await readLedger(runDir, migrationId, role)) === null) return null;
  const message = `the service that was at work on ${guest.name} on the ${role} has ended before its time`;
  throw new ServiceError('VMMIG_PULL_STOPPED', message);
}

/** What a service that was killed has left, when there is nothing to be done any more. */
async function removeRemains(runDir: string, migrationId: string, role: Role): Promise<void> {
  const names = { source: ['source'], destination: ['incoming', 'qemu.pid'] };
  for (const name of [...names[role], `control-${role}`])
    await rm(join(runDir, migrationId, name), { force: true }).catch(() => {});
  await removeLedger(runDir, migrationId, role);
}

/** A monitor that does not answer is not a QEMU that has ended. */
async function hasEnded(ledger: Ledger | null): Promise<boolean> {
  const process = ledger?.guest.process ?? null;
  return process !== null && (ledger!.bootId !== (await bootId()) || !(await isRunning(process)));
}

async function askAtWork(
  { runDir, migrationId }: OrphanedMigration,
  role: 'source' | 'destination',
  event: string,
): Promise<string | null> {
  const control = await connectControl(runDir, migrationId, role);
  if (control === null) return null;
  await using _control = control;
  return (await control.request<{ state: string }>('post', { event })).state;
}

async function monitor({ qmpPath }: Pick<GuestAddress, 'qmpPath'>): Promise<(QmpClient & AsyncDisposable) | null> {
  try {
    return await QmpClient.connect({ path: qmpPath }, { timeoutMs: monitorTimeoutMs });
  } catch {
    return null;
  }
}

async function lookAt(
  qmp: QmpClient | null,
  ledger: Ledger | null,
): Promise<'waiting' | 'running' | 'silent' | 'gone'> {
  const process = ledger?.guest.process ?? null;
  if (qmp === null) return process !== null && (await isRunning(process)) ? 'silent' : 'gone';
  try {
    const { status } = await qmp.execute('query-status', {}, { timeoutMs: monitorTimeoutMs });
    return neverRun.has(status) ? 'waiting' : 'running';
  } catch {
    return 'silent';
  }
}
