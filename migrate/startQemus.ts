/** Has the source's QEMU set out, and the destination's wait for the guest; of a domain libvirt does both. */
import { call, type GuestAddress, type StartedProcess } from '../host-service/protocol.js';
import { domainDeparture } from './domain.js';
import { addressOnDestination } from './locate.js';
import type { Prepared } from './prepared.js';
import type { RelayedMigration, RelaysMeeting } from './relays.js';
import { pageBytes } from './units.js';

/** The source's relay listens: QEMU sets out, into it. */
export async function startSource(
  { source }: Prepared,
  { request, intent, switching }: RelayedMigration,
  { tunnel }: RelaysMeeting,
  signal: AbortSignal,
): Promise<void> {
  const domain = intent.guest.isDomain
    ? { domain: await domainDeparture(request, intent.to, await tunnel, switching !== null) }
    : {};
  const mayThrottle = request.onNoConverge === 'throttle';
  await call(source.rpc, 'source.start', { mayThrottle, ...domain }, { signal });
}

export async function startDestination(
  prepared: Prepared,
  migration: RelayedMigration,
  { tunnel }: RelaysMeeting,
  signal: AbortSignal,
): Promise<StartedProcess> {
  const { destination, plan } = prepared;
  const { stateDir, runDir } = destination.host;
  const { libvirt } = addressOnDestination(migration.intent.guest, migration.request);
  if (plan.destination === null || libvirt !== undefined) {
    await tunnel;
    return await expectDomain(prepared, migration, libvirt!, signal);
  }
  const { qmpPath, commandLine } = plan.destination;
  const start = {
    migrationId: migration.id,
    runDir,
    stateDir,
    vm: migration.request.vm,
    argv: [...commandLine.argv],
    cwd: commandLine.cwd,
    qmpPath,
    disks: [...plan.restorable],
    postcopy: migration.switching !== null,
  };
  return await call(destination.rpc, 'destination.start', start, { signal });
}

/** It is libvirt that starts it, once the source's has begun. */
async function expectDomain(
  { destination, plan, inspection }: Prepared,
  { id: migrationId, request }: RelayedMigration,
  libvirt: NonNullable<GuestAddress['libvirt']>,
  signal: AbortSignal,
): Promise<StartedProcess> {
  const large = inspection.memory.blocks.filter(({ pageSizeBytes }) => pageSizeBytes > pageBytes);
  const expected = {
    migrationId,
    runDir: destination.host.runDir,
    vm: request.vm,
    libvirt,
    disks: [...plan.restorable],
    pageSizes: Object.fromEntries(large.map(({ name, pageSizeBytes }) => [name, pageSizeBytes])),
  };
  return await call(destination.rpc, 'destination.expect', expected, { signal });
}
