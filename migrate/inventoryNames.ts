import { loadInventory } from '../hosts/inventory.js';

/** The names in the inventory, for completion; asks no host, and loads nothing that would. */
export async function inventoryNames({
  inventoryPath,
}: {
  readonly inventoryPath?: string;
}): Promise<{ guests: string[]; hosts: string[] }> {
  const { hosts, guests } = await loadInventory({ path: inventoryPath });
  return { guests: [...guests.keys()], hosts: [...hosts.keys()] };
}
