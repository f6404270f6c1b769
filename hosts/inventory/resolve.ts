/** From what the operator typed after `--to` or `--from` to a host. */
import { HostError } from '../errors.js';
import { parseDestination } from '../ssh/destination.js';
import { defaultHost } from './schema.js';
import type { Inventory, InventoryHost } from './types.js';

/**
 * @param name a host of the inventory, else any SSH destination (`user@host:port`, or a name that ssh_config or DNS
 *   knows); such a host is named after its host part and has the defaults for everything else.
 * @throws HostError VMMIG_SSH_CONFIG when it is neither.
 */
export function resolveHost(inventory: Inventory, name: string): InventoryHost {
  const known = inventory.hosts.get(name);
  if (known) return known;
  const destination = parseDestination(name);
  if (!destination) {
    const names = [...inventory.hosts.keys()].join(', ') || 'none';
    throw new HostError(
      'VMMIG_SSH_CONFIG',
      name,
      `"${name}" is neither a host of the inventory (${inventory.path} has: ${names}) nor an SSH destination ([user@]host[:port])`,
    );
  }
  return defaultHost(destination.host, name);
}
