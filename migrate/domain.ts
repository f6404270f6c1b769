/** What is particular to a guest that libvirt manages: what speaks against its move, and what libvirt is asked to do. */
import { readFile } from 'node:fs/promises';
import { call, type DomainDepartureParams, type Endpoint } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { checkDomain } from '../hypervisor/index.js';
import { VmmigError } from './errors.js';
import { addressOnDestination, domainNamed } from './locate.js';
import type { Prepared } from './prepared.js';
import type { Finding } from './report.js';
import type { MigrateRequest } from './requests.js';

/** On either host, beyond what is looked for with every guest. */
export async function checkForLibvirt(
  { domain, inspection, plan, destination }: Prepared,
  request: MigrateRequest,
  isSwitch: boolean,
  signal?: AbortSignal,
): Promise<Finding[]> {
  if (domain === null) return [];
  const { libvirt: to } = addressOnDestination(domainNamed(request.vm), request);
  const { blocks: ramBlocks } = inspection.memory;
  const plans = { domain, to: to!, disks: plan.disks, ramBlocks };
  const there = await call(destination.rpc, 'destination.checkDomain', plans, { signal });
  const here = checkDomain(domain, { unsafe: request.domain?.unsafe ?? false });
  return [...here, ...there, ...(isSwitch ? [noSwitch(request.vm)] : [])];
}

function noSwitch(vm: string): Finding {
  return {
    severity: 'refuse',
    code: 'VMMIG_DOMAIN_MODE',
    message: `${vm} is managed by libvirt, and only guests that vmmig starts itself can be switched`,
    remedy: 'use vmmig teleport',
  };
}

/**
 * @param tunnel - where vmmig leads to the destination's daemon
 * @throws VmmigError VMMIG_USAGE_FILE when the XML for the destination cannot be read
 */
export async function domainDeparture(
  { domain, onNoConverge }: Pick<MigrateRequest, 'domain' | 'onNoConverge'>,
  to: InventoryHost,
  tunnel: Endpoint | null,
): Promise<DomainDepartureParams> {
  return {
    tunnel: to.libvirtUri === undefined ? tunnel : null,
    destinationUri: to.libvirtUri ?? null,
    persistent: domain?.persistent ?? false,
    undefineSource: domain?.undefineSource ?? false,
    destinationName: domain?.destinationName ?? null,
    xml: domain?.destinationXml === undefined ? null : await readXml(domain.destinationXml),
    unsafe: domain?.unsafe ?? false,
    autoConverge: onNoConverge === 'throttle',
  };
}

async function readXml(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new VmmigError('VMMIG_USAGE_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}
