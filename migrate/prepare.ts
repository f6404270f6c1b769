/**
 * Everything that can be known before anything is changed: the hosts, the running guest, the plan, and
 * what speaks against it. `preflight` ends here, a migration goes on from here.
 */
import { call } from '../host-service/protocol.js';
import { loadInventory, resolveHost } from '../hosts/index.js';
import { checkSource, checkSwitch } from '../hypervisor/index.js';
import { checkForLibvirt, givenXml, renamedImages } from './domain.js';
import { VmmigError } from './errors.js';
import { checkHosts } from './hostFindings.js';
import { addressOf, guestNamed, locateGuest } from './locate.js';
import { noAgent } from './noAgent.js';
import { makePlan } from './plan.js';
import type { Intent, Prepared, Sides } from './prepared.js';
import type { Finding, MigrationMode } from './report.js';
import type { MigrateRequest } from './requests.js';
import { openSideAhead } from './sides.js';

/** Resolves the names of a request. @throws VmmigError VMMIG_USAGE_…; InventoryError, HostError */
export async function understand(request: MigrateRequest): Promise<Intent> {
  const inventory = await loadInventory({ path: request.inventoryPath });
  const guest = guestNamed(inventory, request.vm, request.from);
  const to = resolveHost(inventory, request.to);
  if (request.from !== undefined && resolveHost(inventory, request.from).name === to.name)
    throw new VmmigError('VMMIG_USAGE_SAME_HOST', `${to.name} is both where ${request.vm} is and where it is to go`);
  await givenXml(request);
  return { inventory, guest, to };
}

/**
 * Opens both hosts and looks at the guest.
 * @param onInspected - called as soon as the guest is known, while the destination is still being opened
 * @param silenceLimitMs - how long a host may be silent; what is usual, when left open
 */
export async function prepare(
  { inventory, guest, to }: Intent,
  request: MigrateRequest,
  sides: Sides,
  signal?: AbortSignal,
  onInspected: (found: Pick<Prepared, 'source' | 'inspection' | 'agent'>) => void = () => {},
  silenceLimitMs?: number,
): Promise<Prepared> {
  const options = {
    not: to,
    ...(request.from === undefined ? {} : { from: request.from }),
    ...(signal ? { signal } : {}),
    ...(silenceLimitMs === undefined ? {} : { silenceLimitMs }),
  };
  const findAndInspect = async () => {
    const source = await locateGuest(inventory, guest, options);
    sides.source = source;
    const asked = { ...addressOf(guest), noAgent: request.agent === false };
    const found = { source, ...(await call(source.rpc, 'source.inspect', asked, { signal })) };
    onInspected(found);
    return found;
  };
  const openDestination = async () => {
    const destination = await openSideAhead(to, signal, silenceLimitMs);
    sides.destination = destination;
    return destination;
  };
  // Both are waited for: a side that opens after the other has failed must be closed as well.
  const [found, opened] = await Promise.allSettled([findAndInspect(), openDestination()]);
  if (found.status === 'rejected') throw found.reason;
  if (opened.status === 'rejected') throw opened.reason;
  const { inspection, domain, source } = found.value;
  const renamed = await renamedImages(domain, request);
  return {
    ...found.value,
    destination: opened.value,
    plan: makePlan(inspection, guest, source.host.name, to, renamed),
  };
}

/** What speaks against the plan, on either host, all of it. */
export async function check(
  prepared: Prepared,
  request: MigrateRequest,
  mode: MigrationMode,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const { plan, source, destination } = prepared;
  const isSwitch = maySwitch(request, mode);
  const [there, here, hosts] = await Promise.all([
    plan.destination === null
      ? checkForLibvirt(prepared, request, isSwitch, signal)
      : call(destination.rpc, 'destination.check', { ...plan.destination, postcopy: isSwitch }, { signal }),
    call(source.rpc, 'source.check', { runDir: source.host.runDir }, { signal }),
    checkHosts(prepared),
  ]);
  return [
    ...hosts,
    ...here,
    ...checkGuest(prepared, isSwitch, (disk) =>
      plan.images.some((pair) => pair.device === disk && pair.there.keyFile !== undefined),
    ),
    ...there,
  ];
}

/** Of a teleport, too, that may become one. */
export function maySwitch({ onNoConverge }: MigrateRequest, mode: MigrationMode): boolean {
  return mode === 'switch' || onNoConverge === 'switch';
}

/** What speaks against it that the guest is known by alone. @param isReadable - of an encrypted disk, by the destination */
export function checkGuest(
  { inspection, agent }: Pick<Prepared, 'inspection' | 'agent'>,
  isSwitch: boolean,
  isReadable?: Parameters<typeof checkSource>[1],
): Finding[] {
  return [
    ...checkSource(inspection, isReadable),
    ...(isSwitch ? checkSwitch(inspection) : []),
    ...(agent === null || agent.found ? [] : [noAgent(inspection.name, agent)]),
  ];
}
