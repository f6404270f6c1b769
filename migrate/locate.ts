/** Which host a guest runs on. */
import { call, type GuestAddress } from '../host-service/protocol.js';
import { type Inventory, type InventoryGuest, type InventoryHost, isThisHost, resolveHost } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import type { Finding } from './report.js';
import type { MigrateRequest } from './requests.js';
import { openSide, type Side } from './sides.js';

/** A guest that can be moved: one that the inventory describes, or one that libvirt knows by that name. */
export type Guest = InventoryGuest & { readonly isDomain?: boolean };

/** @param domain - its name, where libvirt knows it by another one */
export function addressOf(guest: Guest, domain: string = guest.name): GuestAddress {
  if (guest.isDomain) return { name: guest.name, qmpPath: '', agentPath: null, libvirt: { uri: localLibvirt, domain } };
  return { name: guest.name, qmpPath: guest.qmp, agentPath: guest.agent ?? null };
}

/** Likewise on the destination, where libvirt may be asked to give it another name. */
export function addressOnDestination(guest: Guest, { domain }: Pick<MigrateRequest, 'domain'>): GuestAddress {
  return addressOf(guest, domain?.destinationName);
}

/** @param host - where it is expected */
export function domainNamed(name: string, host = ''): Guest {
  return { name, host, qmp: '', disks: {}, destination: { replace: {}, options: [] }, isDomain: true };
}

/**
 * What the inventory does not name is taken for a domain, as long as there are hosts on which it may be.
 * @param from - the host that the caller says it is on
 * @throws VmmigError VMMIG_USAGE_GUEST when there are none
 */
export function guestNamed(inventory: Inventory, name: string, from?: string): Guest {
  const guest = inventory.guests.get(name);
  if (guest !== undefined) return guest;
  const hosts = [...inventory.hosts.values()];
  const host = from ?? (hosts.find(isThisHost) ?? hosts[0])?.name;
  if (host !== undefined) return domainNamed(name, host);
  const known = [...inventory.guests.keys()].join(', ') || 'none';
  throw new VmmigError(
    'VMMIG_USAGE_GUEST',
    `the inventory ${inventory.path} has no guest "${name}" (it has: ${known})`,
  );
}

/** As each host calls its own daemon. */
const localLibvirt = 'qemu:///system';

/**
 * Opens the host on which a guest's QEMU answers: the one that was named, else the one the inventory
 * expects it on, else any other host of the inventory.
 * @param not - the destination, which is not looked at
 * @throws VmmigError VMMIG_GUEST_NOT_FOUND; HostError when a host that it may be on cannot be reached
 */
export async function locateGuest(
  inventory: Inventory,
  guest: Guest,
  options: { from?: string; not?: InventoryHost; signal?: AbortSignal; silenceLimitMs?: number },
): Promise<Side> {
  const { from, not, signal, silenceLimitMs } = options;
  const expected = resolveHost(inventory, from ?? guest.host);
  const others = from === undefined ? [...inventory.hosts.values()].filter(({ name }) => name !== expected.name) : [];
  const hosts = [expected, ...others].filter(({ name }) => name !== not?.name);
  const looked: string[] = [];
  let unreachable: { readonly why: unknown } | null = null;
  let isOffOn: string | null = null;
  for (const host of hosts) {
    let side: Side;
    try {
      side = await openSide(host, signal, silenceLimitMs);
    } catch (thrown) {
      // A dead third host is no reason not to move a guest that is found elsewhere.
      if (host.name === expected.name || signal?.aborted) throw thrown;
      unreachable ??= { why: thrown };
      continue;
    }
    const { state } = await call(side.rpc, 'guest.probe', { ...addressOf(guest), noAgent: true }, { signal });
    if (state !== null && state !== 'inmigrate' && state !== 'off') return side;
    if (state === 'off') isOffOn = host.name;
    looked.push(host.name);
    await side[Symbol.asyncDispose]();
  }
  if (isOffOn !== null)
    throw new VmmigError('VMMIG_GUEST_NOT_RUNNING', `${guest.name} is shut off on ${isOffOn}`, { phase: 'preflight' });
  if (unreachable !== null) throw unreachable.why;
  throw new VmmigError(
    'VMMIG_GUEST_NOT_FOUND',
    `${guest.isDomain ? `the inventory has no guest ${guest.name}, and libvirt runs no domain of that name` : `no QEMU answers on ${guest.qmp} for ${guest.name}`}; looked on ${looked.join(', ') || 'no host but the destination'}`,
    { phase: 'preflight' },
  );
}

const remedies: Readonly<Record<string, string>> = {
  VMMIG_GUEST_NOT_RUNNING: 'start it, on either host',
  VMMIG_GUEST_NOT_FOUND: '"vmmig list" shows the guests; start it, or correct the inventory; --from names its host',
};

/** A guest that is off, or nowhere, is refused as any other that cannot be moved: null for what else has been thrown. */
export function findingOf(thrown: unknown): Finding | null {
  if (!(thrown instanceof VmmigError)) return null;
  const { code, message } = thrown;
  const remedy = remedies[code];
  return remedy === undefined ? null : { severity: 'refuse', code, message, remedy };
}
