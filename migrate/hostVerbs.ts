/** Hosts: what they lack, and the inventory's list of them. */
import { hostChecks } from '../host-service/checks.js';
import { call } from '../host-service/protocol.js';
import {
  addHost as addToInventory,
  loadInventory,
  removeHost as removeFromInventory,
  resolveHost,
} from '../hosts/index.js';
import type { Where } from './listGuests.js';
import type { DoctorReport, HostCheck } from './requests.js';
import { openSide } from './sides.js';

/** What this machine needs and has. */
export async function doctor(_options: { readonly signal?: AbortSignal } = {}): Promise<DoctorReport> {
  return { schema: 'vmmig.doctor/1', checks: await hostChecks() };
}

/** The same for another host, with the way to it. */
export async function checkHost(name: string, { inventoryPath, signal }: Where): Promise<HostCheck> {
  const inventory = await loadInventory({ path: inventoryPath });
  const host = resolveHost(inventory, name);
  try {
    await using side = await openSide(host, signal);
    const checks = await call(side.rpc, 'host.checks', {}, { signal });
    return {
      schema: 'vmmig.host/1',
      host: host.name,
      reachable: true,
      rttMs: Math.round((await side.clock).rttMs * 10) / 10,
      checks,
    };
  } catch (thrown) {
    signal?.throwIfAborted();
    const detail = (thrown as Error).message;
    const remedy = `see that \`ssh ${host.ssh}\` works without a password and that vmmig is installed there`;
    const login = { name: 'Login', ok: false, severity: 'required', detail, remedy } as const;
    return { schema: 'vmmig.host/1', host: host.name, reachable: false, rttMs: null, checks: [login] };
  }
}

export interface HostList {
  readonly schema: 'vmmig.hosts/1';
  readonly hosts: readonly { readonly name: string; readonly ssh: string; readonly guests: readonly string[] }[];
}

export async function listHosts({ inventoryPath }: Where): Promise<HostList> {
  const { hosts, guests } = await loadInventory({ path: inventoryPath });
  return {
    schema: 'vmmig.hosts/1',
    hosts: [...hosts.values()].map(({ name, ssh }) => ({
      name,
      ssh,
      guests: [...guests.values()].filter(({ host }) => host === name).map((guest) => guest.name),
    })),
  };
}

export async function addHost({ name, ssh }: { name: string; ssh: string }, { inventoryPath }: Where): Promise<void> {
  await addToInventory(name, { ssh }, { path: inventoryPath });
}

export async function removeHost(name: string, { inventoryPath }: Where): Promise<void> {
  await removeFromInventory(name, { path: inventoryPath });
}
