/** Guests on the lab's hosts: tiny and debian, under libvirt or not. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { assetPath } from './assets.js';
import { startQemu } from './directGuests.js';
import { LabError } from './errors.js';
import { type GuestDisk, type GuestPaths, guestPaths } from './guest/arguments.js';
import { createDataDisk, type DataDiskOptions } from './guest/dataDisk.js';
import { buildDebianGuest } from './guest/debian/debianGuest.js';
import { waitForBoot } from './guest/launch.js';
import { GuestShell } from './guest/shell.js';
import { buildTinyGuest, type TinyGuestImage, type TinyGuestOptions } from './guest/tinyGuest.js';
import { guestAddress } from './guestNetwork.js';
import { cancel, guestPathInHost, pathInMember } from './host/members.js';
import { startDomain } from './libvirt/domains.js';
import type { DomainOptions } from './libvirt/domainXml.js';
import { guestDirectory, guestNetwork, type HostName, labPaths } from './settings.js';
import { type LabGuest, requireState, updateState } from './state.js';

export interface LabGuestOptions extends TinyGuestOptions {
  /** Default `tiny`. What is in `TinyGuestOptions` is for that one alone; `debian` has no agent but qemu-guest-agent. */
  kind?: 'tiny' | 'debian';
  /** Default 1024. */
  memoryMiB?: number;
  cpus?: number;
  /** What its data disk holds, made on the shared storage. Without it there is none. */
  data?: DataDiskOptions;
  /** Further disks. */
  disks?: GuestDisk[];
  /** Of the debian guest's own disks, which are copied to the shared storage. Default `raw`. */
  diskFormat?: 'raw' | 'qcow2';
  /** An address on the guests' network. Default: the debian guest has one. */
  network?: boolean;
  /** Keeps RAM in a shared file, private to the host, instead of QEMU's own memory. */
  sharedMemory?: boolean;
  /** Makes it a domain of the host's libvirt, with a persistent definition there. */
  libvirt?: boolean | DomainOptions;
  /** Starts as a migration's destination, without touching disks or inventory. Not for domains: libvirt does that. */
  incoming?: string;
  /** Not for domains. */
  extraArgs?: string[];
}

/** Of a domain `qmpPath`, `qgaPath` and `pidPath` name nothing: those are libvirt's. */
export interface LabGuestHandle extends GuestPaths {
  /** QEMU's process id as this process sees it. */
  pid: number;
  /** Where clients in the network between the hosts (`labExec('wan', …)`) reach it; null without `network`. */
  address: string | null;
}

/**
 * Starts a guest on `host`, waits until it has booted (a destination: until QEMU answers) and enters it in the inventory,
 * unless it is a domain. The paths returned are reachable from outside the host. The tiny guest's agent is the one built
 * in this project unless `agentPath` says otherwise.
 */
export async function labGuestStart(
  name: string,
  host: HostName,
  options: LabGuestOptions = {},
): Promise<LabGuestHandle> {
  await requireState();
  const { data, incoming, kind = 'tiny', libvirt, network = kind === 'debian', sharedMemory, signal } = options;
  const isNew = incoming === undefined;
  const { mac, ip } = guestAddress(name);
  const { image, disks } = await (kind === 'debian' ? debianGuest : tinyGuest)(name, options);
  if (network) image.append += ` lab.address=${ip}/${guestNetwork.bits}`;
  if (data !== undefined) {
    const disk = { id: 'data', path: join(labPaths.shared(), `${name}-data.img`) };
    if (isNew) await createDataDisk(disk.path, data);
    disks.push(disk);
  }
  disks.push(...(options.disks ?? []));
  const { network: _, ...rest } = options;
  const hasAgentPort = kind === 'tiny';
  const devices = {
    ...rest,
    ...{ dir: guestDirectory, name, disks, hasAgentPort, qga: kind === 'debian' },
    ...(network ? { network: { mac } } : {}),
  };
  const pid = libvirt
    ? await startDomain(host, devices, image, domainOptions(options), signal)
    : await startQemu(
        host,
        { ...devices, ...(sharedMemory ? { memoryFile: `/dev/shm/${name}.ram` } : {}) },
        image,
        signal,
      );
  const outside = guestPathsFromOutside(name, host);
  if (isNew) {
    const patience = { timeoutMs: kind === 'debian' ? 300_000 : 60_000 };
    const shell = await waitForBoot(outside.shellPath, { ...patience, ...(signal ? { signal } : {}) });
    await shell[Symbol.asyncDispose]();
    const paths = Object.fromEntries(disks.map((disk) => [disk.id, disk.path]));
    const guest: LabGuest = { host, disks: paths, hasAgentPort, ...(libvirt ? { isDomain: true } : {}) };
    await updateState((now) => ({ ...now, guests: { ...now.guests, [name]: guest } }), signal);
  }
  return { ...outside, pid, address: network ? ip : null };
}

interface GuestParts {
  image: TinyGuestImage;
  disks: GuestDisk[];
}

async function tinyGuest(_name: string, options: LabGuestOptions): Promise<GuestParts> {
  const agent = assetPath('dist/guest-agent/vmmig-agent');
  const image = await buildTinyGuest({ agentPath: existsSync(agent) ? agent : null, ...options });
  return { image, disks: [] };
}

/** The disks are copies: a guest writes to them, and libvirt may change their owner. */
async function debianGuest(
  name: string,
  { diskFormat = 'raw', incoming, signal }: LabGuestOptions,
): Promise<GuestParts> {
  const { disks: templates, ...image } = await buildDebianGuest(signal ? { signal } : {});
  const suffix = diskFormat === 'raw' ? 'img' : diskFormat;
  const disks = templates.map(({ id }) => ({
    id,
    path: join(labPaths.shared(), `${name}-${id}.${suffix}`),
    format: diskFormat,
  }));
  for (const [i, { path }] of incoming === undefined ? disks.entries() : []) {
    const template = templates[i]!.path;
    if (diskFormat === 'raw') {
      await execa('cp', ['--reflink=auto', '--sparse=always', template, path], cancel(signal));
    } else {
      await execa('qemu-img', ['convert', '-f', 'raw', '-O', diskFormat, template, path], cancel(signal));
    }
  }
  return { image, disks };
}

function domainOptions({ libvirt, sharedMemory, incoming, extraArgs }: LabGuestOptions): DomainOptions {
  if (incoming !== undefined || extraArgs !== undefined) {
    throw new LabError('VMMIG_LAB_UNSUPPORTED', 'A domain takes no arguments for QEMU: libvirt gives them');
  }
  return { ...(sharedMemory ? { memory: 'file' } : {}), ...(typeof libvirt === 'object' ? libvirt : {}) };
}

/** Connects to the shell of a guest on `host`, which must run there. One connection at a time reaches a guest. */
export function labGuestShell(
  name: string,
  host: HostName,
  options: { signal?: AbortSignal } = {},
): Promise<GuestShell> {
  return GuestShell.connect(guestPathInHost(host, `${name}.shell`), options);
}

/** A guest's sockets and files in `host` as seen from outside. */
export function guestPathsFromOutside(name: string, host: HostName): GuestPaths {
  return guestPaths(pathInMember(host, guestDirectory), name);
}
