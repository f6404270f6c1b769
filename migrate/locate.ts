/** Which host a guest runs on. */
import { call, type GuestAddress } from '../host-service/protocol.js';
import { type Inventory, type InventoryGuest, type InventoryHost, resolveHost } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import { openSide, type Side } from './sides.js';

export function addressOf(guest: InventoryGuest): GuestAddress {
  return { name: guest.name, qmpPath: guest.qmp, agentPath: guest.agent ?? null };
}

/** @throws VmmigError VMMIG_USAGE_GUEST when the inventory has no such guest */
export function guestNamed(inventory: Inventory, name: string): InventoryGuest {
  const guest = inventory.guests.get(name);
  if (guest !== undefined) return guest;
  const known = [...inventory.guests.keys()].join(', ') || 'none';
  throw new VmmigError(
    'VMMIG_USAGE_GUEST',
    `the inventory ${inventory.path} has no guest "${name}" (it has: ${known})`,
  );
}

/**
 * Opens the host on which a guest's QEMU answers: the one that was named, else the one the inventory
 * expects it on, else any other host of the inventory.
 * @param not - the destination, which is not looked at
 * @throws VmmigError VMMIG_GUEST_NOT_FOUND; HostError when the host cannot be reached
 */
export async function locateGuest(
  inventory: Inventory,
  guest: InventoryGuest,
  options: { from?: string; not?: InventoryHost; signal?: AbortSignal },
): Promise<Side> {
  const { from, not, signal } = options;
  const expected = resolveHost(inventory, from ?? guest.host);
  const others = from === undefined ? [...inventory.hosts.values()].filter(({ name }) => name !== expected.name) : [];
  const hosts = [expected, ...others].filter(({ name }) => name !== not?.name);
  const looked: string[] = [];
  for (const host of hosts) {
    let side: Side;
    try {
      side = await openSide(host, signal);
    } catch (thrown) {
      // Only the expected host must be reachable; a dead third host is no reason not to move a guest.
      if (host.name === expected.name || signal?.aborted) throw thrown;
      looked.push(`${host.name} (not reachable)`);
      continue;
    }
    const { state } = await call(side.rpc, 'guest.probe', { ...addressOf(guest), agentPath: null }, { signal });
    if (state !== null && state !== 'inmigrate') return side;
    looked.push(host.name);
    await side[Symbol.asyncDispose]();
  }
  throw new VmmigError(
    'VMMIG_GUEST_NOT_FOUND',
    `no QEMU answers on ${guest.qmp} for ${guest.name}; looked on ${looked.join(', ') || 'no host but the destination'}`,
    { phase: 'preflight' },
  );
}
