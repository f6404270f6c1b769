/** What libvirt is asked to do with a domain besides moving it. */
import { readFile } from 'node:fs/promises';
import type { DomainDepartureParams, Endpoint } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import type { MigrateRequest } from './requests.js';

/**
 * @param tunnel - where vmmig leads to the destination's daemon
 * @throws VmmigError VMMIG_USAGE_FILE when the XML for the destination cannot be read
 */
export async function domainDeparture(
  { domain }: Pick<MigrateRequest, 'domain'>,
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
  };
}

async function readXml(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new VmmigError('VMMIG_USAGE_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}
