/**
 * A guest that has lost part of its memory stays until somebody ends it: it stands still when it touches what is missing,
 * and what it has written by then is its own. What this host has noted of it is to be had until then, and is to be gone
 * with it. Where the service that would see to that has died, another one stays for it, and does nothing else.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type DomainAddress, domainId, isRunning, LibvirtError, processId, Virsh } from '../../hypervisor/index.js';
import { type Ledger, readLedger, updateLedger } from '../commit/index.js';
import { notedProcess, pidFile } from './leftGuest.js';
import { type OrphanedMigration, removeRemains } from './orphans.js';

const pollMs = 2_000;

/** Whether the QEMU is there that was there when this was asked first. */
interface Remains extends AsyncDisposable {
  areThere(): Promise<boolean>;
}

/**
 * Resolves when the guest's QEMU has ended here and nothing that was noted of it is left; at once when another service
 * waits for that.
 */
export async function keepVigil({ runDir, migrationId }: OrphanedMigration): Promise<void> {
  const ledger = await readLedger(runDir, migrationId, 'destination');
  if (ledger === null || (await isKept(ledger))) return;
  const service = await processId(process.pid);
  // On a full disk it is kept all the same; only nobody is told.
  await updateLedger(runDir, { migrationId, role: 'destination' }, { phase: 'lost', service }).catch(() => {});
  await using remains = await remainsOf(ledger, join(runDir, migrationId));
  while (await remains.areThere()) await delay(pollMs);
  await removeRemains(runDir, migrationId, 'destination');
}

async function isKept({ phase, service }: Ledger): Promise<boolean> {
  return phase === 'lost' && service !== null && service.pid !== process.pid && (await isRunning(service));
}

async function remainsOf({ guest }: Ledger, directory: string): Promise<Remains> {
  if (guest.libvirt !== undefined) return remainsOfDomain(guest.libvirt);
  // Its monitor serves one at a time, which is to be who ends it.
  const qemu = guest.process ?? (await notedProcess(join(directory, pidFile)));
  return {
    areThere: async () => qemu !== null && (await isRunning(qemu)),
    async [Symbol.asyncDispose]() {},
  };
}

/** Another domain of the name may be started as soon as it has been ended. */
function remainsOfDomain({ uri, domain }: DomainAddress): Remains {
  const virsh = new Virsh(uri);
  let first: string | null = null;
  return {
    async areThere() {
      try {
        const id = await domainId(virsh, domain);
        first ??= id;
        return id !== null && id === first;
      } catch (thrown) {
        // A daemon that is down says nothing about its guests.
        if (thrown instanceof LibvirtError) return true;
        throw thrown;
      }
    },
    [Symbol.asyncDispose]: () => virsh[Symbol.asyncDispose](),
  };
}
