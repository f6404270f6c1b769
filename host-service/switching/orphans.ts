/**
 * What `recover` asks of a host, from a service that has no part in the migration: it asks the one that has, and where
 * that is gone, goes on from what is on disk and what QEMU says.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { RemoteError } from '../../hosts/rpc.js';
import {
  type DestinationEvent,
  type DestinationState,
  decideAtDestination,
  decideAtSource,
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
import { removeStreamPath } from '../guest/libvirtPaths.js';
import { bootId } from '../newLedger.js';
import type { AskedDestination, GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import {
  hasEnded,
  type LeftAtDestination,
  leftAtDestination,
  leftAtSource,
  leftByLibvirtAtDestination,
  leftByLibvirtAtSource,
} from './leftGuest.js';

const endingMs = 2_000;
const pollMs = 100;

export interface OrphanedMigration {
  readonly guest: GuestAddress;
  readonly runDir: string;
  readonly migrationId: string;
}

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
  await using guest = await (migration.guest.libvirt === undefined
    ? leftAtSource(migration.guest, ledger)
    : leftByLibvirtAtSource(migration.guest.libvirt));
  // Nothing is noted any more: the service that is gone has put it right.
  const isPutRight = ledger === null && decision === null && guest.state === 'running';
  const state = isPutRight ? 'resumed' : sourceFrom({ decision, guest: guest.state });
  const driver = new CommitDriver(state, sourceStep, async (action): Promise<SourceEvent | null> => {
    switch (action) {
      case 'writeKept':
        return await decideAtSource(migration, 'kept');
      case 'resumeGuest':
        return await attempt(() => guest.resume(), 'guestResumed', 'resumeFailed');
      case 'endQemu':
        // Its memory is in a service that is gone: what the destination still needs is here and nowhere else.
        if (ledger?.mode === 'switch' && (ledger.phase === 'committing' || ledger.phase === 'pulling'))
          return 'endFailed';
        return await attempt(() => guest.end(), 'qemuEnded', 'endFailed');
      default:
        return null;
    }
  });
  const reached = await driver.post(event);
  if (reached === 'resumed' || reached === 'released') await removeRemains(runDir, migrationId, 'source');
  return reached;
}

/**
 * What the service that died kept was the guest's memory, and its QEMU here has ended: nothing that is left is of use to
 * anybody.
 */
export async function removeLostSource({ runDir, migrationId }: Omit<OrphanedMigration, 'guest'>): Promise<void> {
  const ledger = await readLedger(runDir, migrationId, 'source');
  if (ledger?.phase === 'pulling') await removeRemains(runDir, migrationId, 'source');
}

/**
 * Asks the destination's side: does the guest run there? If not, it never will.
 * @param bootIdThen - of this host when the migration began, where that is known
 */
export async function askDestination(
  migration: OrphanedMigration,
  bootIdThen: string | null = null,
): Promise<AskedDestination> {
  const { runDir, migrationId } = migration;
  const atWork = (await askAtWork(migration, 'destination', 'ask')) as DestinationState | null;
  if (atWork !== null) return await asked(migration, atWork);
  const ledger = await readLedger(runDir, migrationId, 'destination');
  const decision = await readDecision(runDir, migrationId, 'destination');
  await using guest = await guestAtDestination(migration, ledger);
  // The ledger is removed when the guest was given up, or has run and nobody needs to ask any more.
  const remembers = (ledger?.bootId ?? bootIdThen) === (await bootId());
  const state = destinationFrom({ remembers, decision, guest: await guest.look() });
  const driver = new CommitDriver(state, destinationStep, async (action): Promise<DestinationEvent | null> => {
    switch (action) {
      case 'writeEnd':
        return await decideAtDestination(migration, 'end');
      case 'lookAtGuest': {
        const found = await guest.look(true);
        return found === 'running' ? 'guestRuns' : found === 'waiting' ? 'guestWaits' : 'guestGone';
      }
      case 'startGuest':
        return await attempt(() => guest.start(), 'guestStarted', 'startSilent');
      case 'endQemu':
        return await attempt(() => guest.end(), 'qemuEnded', 'endFailed');
      default:
        return null;
    }
  });
  const reached = await driver.post('ask');
  if (reached === 'ended') await removeRemains(runDir, migrationId, 'destination');
  if (remembers) return await asked(migration, reached);
  const hasRestarted = ledger !== null || bootIdThen !== null;
  return { state: reached, remembers, guestHasEnded: reached === 'doubtful' && hasRestarted };
}

/** The answer of a host that has been up since. */
export async function asked(migration: OrphanedMigration, state: DestinationState): Promise<AskedDestination> {
  return { state, remembers: true, guestHasEnded: state === 'doubtful' && (await hasEndedHere(migration)) };
}

/** Only what is certain: a monitor that does not answer may be another's. */
async function hasEndedHere({ guest: { libvirt }, runDir, migrationId }: OrphanedMigration): Promise<boolean> {
  if (libvirt === undefined) return await hasEnded(await readLedger(runDir, migrationId, 'destination'));
  await using guest = await leftByLibvirtAtDestination(libvirt, migrationId);
  return (await guest.look()) === 'gone';
}

/**
 * The source has let go of the guest that runs here, or, after a switch, has lost what it had of it.
 * @returns false when nobody is at work here who will remove what was noted of the guest once it has ended
 */
export async function concludeDestination(migration: OrphanedMigration): Promise<boolean> {
  const { runDir, migrationId } = migration;
  const control = await connectControl(runDir, migrationId, 'destination');
  if (control !== null) {
    await using _control = control;
    await control.request('conclude');
    return true;
  }
  const ledger = await readLedger(runDir, migrationId, 'destination');
  await using guest = await guestAtDestination(migration, ledger);
  if (ledger?.mode !== 'teleport' && !(await hasGone(guest))) return ledger === null;
  await removeRemains(runDir, migrationId, 'destination');
  return true;
}

/** A QEMU that does not answer any more may be about to end. */
async function hasGone(guest: LeftAtDestination): Promise<boolean> {
  const startMs = performance.now();
  for (;;) {
    const found = await guest.look();
    if (found !== 'silent' || performance.now() - startMs > endingMs) return found === 'gone';
    await delay(pollMs);
  }
}

async function guestAtDestination(migration: OrphanedMigration, ledger: Ledger | null): Promise<LeftAtDestination> {
  const { libvirt } = migration.guest;
  return await (libvirt === undefined
    ? leftAtDestination(migration, ledger)
    : leftByLibvirtAtDestination(libvirt, migration.migrationId));
}

async function attempt<Event>(work: () => Promise<void>, done: Event, failed: Event): Promise<Event> {
  try {
    await work();
    return done;
  } catch {
    return failed;
  }
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
export async function removeRemains(runDir: string, migrationId: string, role: Role): Promise<void> {
  await removeStreamPath(migrationId);
  await removeLedger(runDir, migrationId, role);
  const other = role === 'source' ? 'destination' : 'source';
  if ((await readLedger(runDir, migrationId, other)) === null)
    await rm(join(runDir, migrationId), { recursive: true, force: true });
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
