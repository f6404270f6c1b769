/** Which guests there are, and where each of them runs. */
import { call, type GuestProbe } from '../host-service/protocol.js';
import { loadInventory } from '../hosts/index.js';
import { addressOf, domainNamed, type Guest } from './locate.js';
import type { GuestList, GuestListing } from './requests.js';
import { runningMigration } from './running.js';
import { openSide } from './sides.js';

export interface Where {
  readonly inventoryPath?: string;
  readonly signal?: AbortSignal;
}

interface HostAnswer {
  readonly host: string;
  readonly probes: ReadonlyMap<string, GuestProbe>;
  readonly problem: string | null;
}

/** Asks every host of the inventory for every guest, and for libvirt's: a guest may have been moved by someone else. */
export async function listGuests({ inventoryPath, signal }: Where): Promise<GuestList> {
  const inventory = await loadInventory({ path: inventoryPath });
  const described = [...inventory.guests.values()];
  const answers = await Promise.all(
    [...inventory.hosts.values()].map(async (host): Promise<HostAnswer> => {
      try {
        await using side = await openSide(host, signal);
        const names = await call(side.rpc, 'host.domains', {}, { signal });
        const domains = names.filter((name) => !inventory.guests.has(name)).map((name) => domainNamed(name, host.name));
        const probes = await Promise.all(
          [...described, ...domains].map(
            async (guest) => [guest.name, await call(side.rpc, 'guest.probe', addressOf(guest), { signal })] as const,
          ),
        );
        return { host: host.name, probes: new Map(probes), problem: null };
      } catch (thrown) {
        signal?.throwIfAborted();
        return { host: host.name, probes: new Map(), problem: (thrown as Error).message };
      }
    }),
  );
  const found = new Set(answers.flatMap(({ probes }) => [...probes.keys()]));
  const domains = [...found].filter((name) => !inventory.guests.has(name)).sort();
  const guests: Guest[] = [...described, ...domains.map((name) => domainNamed(name))];
  return { schema: 'vmmig.list/1', guests: await Promise.all(guests.map((guest) => listing(guest, answers))) };
}

async function listing(guest: Guest, answers: readonly HostAnswer[]): Promise<GuestListing> {
  const migration = (await runningMigration(guest.name))?.id ?? null;
  const found = answers
    .map(({ host, probes }) => ({ host, probe: probes.get(guest.name) }))
    .filter(({ probe }) => probe !== undefined && probe.state !== null);
  // While it is moved the guest has a QEMU on both hosts; the one that waits for it is not where it is.
  // A domain that has moved may have left its configuration where it was.
  const isThere = ({ probe }: (typeof found)[number]) => probe?.state !== 'inmigrate' && probe?.state !== 'off';
  const at = found.find(isThere) ?? found[0];
  if (at?.probe == null) {
    const problem = answers.find(({ host }) => host === guest.host)?.problem ?? null;
    return {
      vm: guest.name,
      host: null,
      state: problem === null ? 'off' : 'unknown',
      memoryBytes: null,
      agent: null,
      agentVia: null,
      migration,
      problem,
    };
  }
  const { state, memoryBytes, agent, agentVia, problem } = at.probe;
  const others = found.filter(({ probe }) => probe?.state === 'running' && probe !== at.probe);
  return {
    vm: guest.name,
    host: at.host,
    state: state ?? 'unknown',
    memoryBytes,
    agent,
    agentVia,
    migration,
    problem: others.length === 0 ? problem : `runs on ${others.map(({ host }) => host).join(', ')} as well`,
  };
}
