/** Asks a guest's agent for its page cache, as a migration would. */
import { call } from '../host-service/protocol.js';
import { loadInventory } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import type { Where } from './listGuests.js';
import { addressOf, guestNamed, locateGuest } from './locate.js';
import type { ScanReport } from './requests.js';
import { pageBytes } from './units.js';

/** @throws VmmigError VMMIG_AGENT_UNAVAILABLE, VMMIG_GUEST_NOT_FOUND, VMMIG_USAGE_GUEST */
export async function agentScan(
  vm: string,
  { inventoryPath, signal, from }: Where & { from?: string },
): Promise<ScanReport> {
  const inventory = await loadInventory({ path: inventoryPath });
  const guest = guestNamed(inventory, vm);
  const options = { ...(from === undefined ? {} : { from }), ...(signal === undefined ? {} : { signal }) };
  await using side = await locateGuest(inventory, guest, options);
  const { agent } = await call(side.rpc, 'source.inspect', addressOf(guest), { signal });
  if (!agent?.found) {
    const code = agent?.isBlocked === true ? 'VMMIG_AGENT_BLOCKED' : 'VMMIG_AGENT_UNAVAILABLE';
    throw new VmmigError(code, `no agent answers in ${vm}: ${agent?.reason}`);
  }
  const { via, scanMs, pages, runs, disks, skipped } = await call(
    side.rpc,
    'source.scan',
    { mode: 'full' },
    { signal },
  );
  return {
    schema: 'vmmig.scan/1',
    vm,
    host: side.host.name,
    via,
    scanMs,
    pages,
    runs,
    bytes: pages * pageBytes,
    disks: disks.map((disk) => ({ ...disk, serial: disk.serial ?? '' })),
    skipped,
  };
}
