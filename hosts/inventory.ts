/** The inventory: which hosts there are, and which plain-QEMU guests run on them (docs/inventory.md). */
export { addHost, removeHost } from './inventory/edit.js';
export { InventoryError, type InventoryIssue } from './inventory/inventoryError.js';
export { inventoryPath, type LoadInventoryOptions, loadInventory, parseInventory } from './inventory/load.js';
export { resolveHost } from './inventory/resolve.js';
export { diskPathOn, type HostEntry } from './inventory/schema.js';
export type {
  GuestDestination,
  Inventory,
  InventoryDisk,
  InventoryGuest,
  InventoryHost,
  PortRange,
} from './inventory/types.js';
