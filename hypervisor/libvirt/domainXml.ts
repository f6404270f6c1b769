/**
 * What vmmig reads in a domain's XML. https://libvirt.org/formatdomain.html has the format; what is not read here stays
 * libvirt's business. The document comes from a daemon that root trusts, or from a file that root named.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import * as z from 'zod';
import { LibvirtError } from './errors.js';

export interface DomainDisk {
  /** As the guest's bus knows it: `vda`. What `disk` elements are told apart by. */
  readonly target: string;
  readonly device: 'disk' | 'cdrom' | 'floppy' | 'lun';
  /** `file`, `block`, `network`, `volume`, …; null for an empty drive. */
  readonly source: { readonly type: string; readonly path: string | null } | null;
  readonly format: string;
  readonly serial: string | null;
  readonly readOnly: boolean;
  readonly shareable: boolean;
  readonly cache: string | null;
  /** Images below this one, the nearest first. */
  readonly backingPaths: readonly string[];
}

export interface DomainChannel {
  /** The host's end. */
  readonly path: string;
  /** A program in the guest has the port open. */
  readonly isConnected: boolean;
}

export interface DomainDescription {
  readonly name: string;
  readonly uuid: string;
  /** `kvm`, `qemu`, … */
  readonly type: string;
  readonly emulator: string | null;
  readonly machine: string;
  readonly arch: string;
  readonly memoryBytes: number;
  /** Guest memory can be read by other processes (`<access mode='shared'/>`), and is no anonymous memory. */
  readonly isMemoryShared: boolean;
  readonly disks: readonly DomainDisk[];
  /** Devices that are, or talk to, something on this host, in the XML's words. */
  readonly hostDevices: readonly string[];
  /** Devices whose other end reads and writes the guest's memory by itself. */
  readonly vhostUser: readonly string[];
  /** The virtio-serial ports that have a unix socket on the host, by the port's name. */
  readonly channels: ReadonlyMap<string, DomainChannel>;
  /** Whom QEMU runs as, by name or number, where the domain settles that itself instead of leaving it to the daemon. */
  readonly user: string | null;
}

const lists = new Set([
  'disk',
  'hostdev',
  'interface',
  'channel',
  'filesystem',
  'redirdev',
  'seclabel',
  'numa.cell',
  'memory',
]);
const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  parseAttributeValue: false,
  parseTagValue: false,
  isArray: (name) => lists.has(name),
});

/** An element: attributes as `@name`, text as `#text` or as the value itself. */
type Element = Record<string, unknown>;
const element = z.preprocess(
  (value) => (typeof value === 'string' ? { '#text': value } : (value ?? {})),
  z.record(z.string(), z.unknown()),
);

/** @throws LibvirtError VMMIG_LIBVIRT_COMMAND when it is no domain's XML */
export function parseDomain(xml: string): DomainDescription {
  const valid = XMLValidator.validate(xml);
  if (valid !== true) throw malformed(valid.err.msg);
  const root: unknown = parser.parse(xml);
  const found = z.object({ domain: element }).safeParse(root);
  if (!found.success) throw malformed('there is no <domain>');
  const { domain } = found.data;
  const devices = child(domain, 'devices');
  const osType = child(child(domain, 'os'), 'type');
  const name = text(domain.name);
  if (name === '') throw malformed('it has no <name>');
  return {
    name,
    uuid: text(domain.uuid),
    type: attribute(domain, 'type') ?? '',
    emulator: text(devices.emulator) || null,
    machine: attribute(osType, 'machine') ?? '',
    arch: attribute(osType, 'arch') ?? '',
    memoryBytes: bytesOf(children(domain, 'memory')[0] ?? {}),
    isMemoryShared: isShared(domain),
    disks: children(devices, 'disk').map(diskOf),
    hostDevices: [
      ...children(devices, 'hostdev').map((one) => `${attribute(one, 'type') ?? 'host'} host device`),
      ...children(devices, 'interface')
        .filter((one) => attribute(one, 'type') === 'hostdev')
        .map(() => 'host network device'),
    ],
    vhostUser: [
      ...children(devices, 'interface')
        .filter((one) => attribute(one, 'type') === 'vhostuser')
        .map(() => 'vhost-user network'),
      ...children(devices, 'interface')
        .filter((one) => attribute(one, 'type') === 'vdpa')
        .map(() => 'vDPA network'),
      ...children(devices, 'disk')
        .filter((one) => attribute(one, 'type') === 'vhostuser')
        .map(() => 'vhost-user disk'),
      ...children(devices, 'filesystem')
        .filter((one) => attribute(child(one, 'driver'), 'type') === 'virtiofs')
        .map(() => 'virtiofs share'),
    ],
    channels: channelsOf(devices),
    user: userOf(domain),
  };
}

function diskOf(disk: Element): DomainDisk {
  const driver = child(disk, 'driver');
  const source = child(disk, 'source');
  const type = attribute(disk, 'type') ?? 'file';
  const path = pathOf(source);
  const device = attribute(disk, 'device') ?? 'disk';
  return {
    target: attribute(child(disk, 'target'), 'dev') ?? '',
    device: device as DomainDisk['device'],
    source: Object.keys(source).length === 0 ? null : { type, path },
    format: attribute(driver, 'type') ?? 'raw',
    serial: text(disk.serial) || null,
    readOnly: 'readonly' in disk,
    shareable: 'shareable' in disk,
    cache: attribute(driver, 'cache'),
    backingPaths: backingOf(disk),
  };
}

function backingOf(disk: Element): string[] {
  const paths: string[] = [];
  for (let store = child(disk, 'backingStore'); 'source' in store; store = child(store, 'backingStore')) {
    const path = pathOf(child(store, 'source'));
    if (path !== null) paths.push(path);
  }
  return paths;
}

const pathOf = (source: Element): string | null => attribute(source, 'file') ?? attribute(source, 'dev');

/** Of all memory: with NUMA cells each of them says so itself, or leaves it to `memoryBacking`. */
function isShared(domain: Element): boolean {
  const backing = child(domain, 'memoryBacking');
  const byDefault = attribute(child(backing, 'access'), 'mode') === 'shared';
  const numa = child(child(domain, 'cpu'), 'numa');
  const cells = children(numa, 'cell');
  const inFiles =
    ['file', 'memfd'].includes(attribute(child(backing, 'source'), 'type') ?? '') || 'hugepages' in backing;
  const shared =
    cells.length === 0
      ? byDefault
      : cells.every((cell) => (attribute(cell, 'memAccess') ?? (byDefault ? 'shared' : '')) === 'shared');
  return shared && inFiles;
}

function channelsOf(devices: Element): Map<string, DomainChannel> {
  const found = new Map<string, DomainChannel>();
  for (const channel of children(devices, 'channel')) {
    const target = child(channel, 'target');
    const name = attribute(target, 'name');
    const path = attribute(child(channel, 'source'), 'path');
    const isConnected = attribute(target, 'state') === 'connected';
    if (attribute(channel, 'type') === 'unix' && name !== null && path !== null) found.set(name, { path, isConnected });
  }
  return found;
}

/** `<seclabel type='static' model='dac'><label>libvirt-qemu:kvm</label>`, or `+64055:+64055` */
function userOf(domain: Element): string | null {
  const label = children(domain, 'seclabel').find(
    (one) => attribute(one, 'model') === 'dac' && attribute(one, 'type') === 'static',
  );
  return /^\+?([^:]+)/.exec(text(label?.label))?.[1] ?? null;
}

const units: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  KB: 1e3,
  k: 1024,
  KiB: 1024,
  MB: 1e6,
  M: 2 ** 20,
  MiB: 2 ** 20,
  GB: 1e9,
  G: 2 ** 30,
  GiB: 2 ** 30,
  T: 2 ** 40,
  TiB: 2 ** 40,
};
const bytesOf = (size: Element): number =>
  Number(size['#text'] ?? 0) * (units[attribute(size, 'unit') ?? 'KiB'] ?? 1024);

function child(parent: Element, name: string): Element {
  return children(parent, name)[0] ?? {};
}

function children(parent: Element, name: string): Element[] {
  const value = parent[name];
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : [value]).map((one) => element.parse(one));
}

function attribute(of: Element, name: string): string | null {
  const value = of[`@${name}`];
  return typeof value === 'string' ? value : null;
}

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  const inner = Array.isArray(value) ? value[0] : value;
  return typeof inner === 'object' && inner !== null && '#text' in inner
    ? String(inner['#text'])
    : typeof inner === 'string'
      ? inner
      : '';
}

function malformed(reason: string): LibvirtError {
  return new LibvirtError('VMMIG_LIBVIRT_COMMAND', `this is no domain's XML: ${reason}`);
}
