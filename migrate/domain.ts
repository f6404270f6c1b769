/** What is particular to a guest that libvirt manages: what speaks against its move, and what libvirt is asked to do. */
import { readFile } from 'node:fs/promises';
import { call, type DomainDepartureParams, type Tunnel } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import {
  checkDomain,
  type DomainDescription,
  type DomainInspection,
  mediaIn,
  parseDomain,
} from '../hypervisor/index.js';
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
  const plans = {
    domain: await asOnDestination(domain, request),
    to: to!,
    disks: plan.disks,
    ramBlocks,
    postcopy: isSwitch,
  };
  const there = await call(destination.rpc, 'destination.checkDomain', plans, { signal });
  const here = checkDomain(domain, { unsafe: request.domain?.unsafe ?? false });
  return [...here, ...there];
}

/** What the destination is asked for follows the XML that it will be given. */
async function asOnDestination(domain: DomainInspection, request: MigrateRequest): Promise<DomainInspection> {
  const given = await givenXml(request);
  if (given === null) return domain;
  return { ...domain, emulator: given.emulator ?? domain.emulator, media: mediaIn(given.disks) };
}

/** Paths of images that have another one in the XML for the destination. @throws VmmigError VMMIG_USAGE_FILE */
export async function renamedImages(
  domain: DomainInspection | null,
  request: Pick<MigrateRequest, 'domain'>,
): Promise<ReadonlyMap<string, string>> {
  const given = await givenXml(request);
  const there = new Map(given?.disks.map(({ target, source }) => [target, source?.path ?? null]));
  return new Map(
    domain?.images.flatMap(({ target, path }) => {
      const other = there.get(target) ?? null;
      return other === null ? [] : [[path, other]];
    }),
  );
}

/** @throws VmmigError VMMIG_USAGE_FILE when it cannot be read, or is none */
export async function givenXml({ domain }: Pick<MigrateRequest, 'domain'>): Promise<DomainDescription | null> {
  if (domain?.destinationXml === undefined) return null;
  const xml = await readXml(domain.destinationXml);
  try {
    return parseDomain(xml);
  } catch (cause) {
    throw new VmmigError('VMMIG_USAGE_FILE', `${domain.destinationXml}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * @param tunnel - where vmmig leads to the destination's daemon
 * @param isSwitch - then vmmig has to follow what libvirt says there
 * @throws VmmigError VMMIG_USAGE_FILE when the XML for the destination cannot be read
 */
export async function domainDeparture(
  { domain, onNoConverge }: Pick<MigrateRequest, 'domain' | 'onNoConverge'>,
  to: InventoryHost,
  tunnel: Tunnel | null,
  isSwitch: boolean,
): Promise<DomainDepartureParams> {
  const usesTunnel = isSwitch || to.libvirtUri === undefined;
  return {
    tunnel: usesTunnel ? tunnel : null,
    destinationUri: usesTunnel ? null : to.libvirtUri!,
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
