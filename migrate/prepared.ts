/** What a migration knows before it changes anything. */
import type { AgentSearch } from '../host-service/protocol.js';
import type { Inventory, InventoryHost } from '../hosts/index.js';
import type { DomainInspection, GuestInspection } from '../hypervisor/index.js';
import type { Guest } from './locate.js';
import type { Plan } from './plan.js';
import type { Side } from './sides.js';

export interface Intent {
  readonly inventory: Inventory;
  readonly guest: Guest;
  readonly to: InventoryHost;
}

/** The sides are the caller's to close, also when preparing fails. */
export interface Sides {
  source: Side | null;
  destination: Side | null;
}

export interface Prepared {
  readonly source: Side;
  readonly destination: Side;
  readonly inspection: GuestInspection;
  /** Null: it was not to be looked for. */
  readonly agent: AgentSearch | null;
  /** Of a guest that libvirt manages. */
  readonly domain: DomainInspection | null;
  readonly plan: Plan;
}
