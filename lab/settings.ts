/** Where the lab is, what its hosts are called and how they are reached. */
import { join } from 'node:path';
import type { LibvirtVersion } from './libvirt/version.js';
import type { LabQemu } from './qemu.js';

export const hostNames = ['hostA', 'hostB'] as const;
export type HostName = (typeof hostNames)[number];

/** The two hosts and the network between them are alike: each is a set of namespaces. */
export type MemberName = HostName | 'wan';

export interface WanSettings {
  /** Round-trip time that the WAN adds. Default 40. */
  rttMs: number;
  /** Bits per second in each direction; null leaves the WAN as fast as this machine is. Default 200 Mbit/s. */
  rateBps: number | null;
}

export interface LabSettings extends WanSettings {
  /** Default `7.2`. */
  qemu: LabQemu;
  /** What each host runs; null, the default, for none. */
  libvirt: LibvirtVersion | null;
}

export const defaultSettings: LabSettings = { rttMs: 40, rateBps: 200_000_000, qemu: '7.2', libvirt: null };

/** Each host's address, and the WAN's on the same network, which is its way to the other host. */
export const networks: Record<HostName, { address: string; gateway: string; device: string }> = {
  hostA: { address: '10.77.1.1', gateway: '10.77.1.254', device: 'to-hostA' },
  hostB: { address: '10.77.2.1', gateway: '10.77.2.254', device: 'to-hostB' },
};

/**
 * The network of the guests: a bridge in each host, joined by one in the network between them, where their clients are.
 * It does not pass the WAN.
 */
export const guestNetwork = { bridge: 'guests', clientAddress: '10.77.3.254', bits: 24 };

/** Where a guest's sockets are in its host; the same path is another directory in each host. */
export const guestDirectory = '/run/vmmig-lab';

/** Everything the lab keeps on disk, except the cache; `VMMIG_LAB_DIR` overrides it. */
export function labDirectory(): string {
  return process.env.VMMIG_LAB_DIR ?? '/var/lib/vmmig/lab';
}

/** Paths below the lab directory. All but `hostDirectory` are seen by both hosts. */
export const labPaths = {
  shared: () => join(labDirectory(), 'shared'),
  inventory: () => join(labDirectory(), 'inventory.yaml'),
  state: () => join(labDirectory(), 'state.json'),
  bin: () => join(labDirectory(), 'bin'),
  labHost: () => join(labDirectory(), 'bin', 'lab-host'),
  wanLink: () => join(labDirectory(), 'bin', 'wan-link'),
  vmmig: () => join(labDirectory(), 'bin', 'vmmig'),
  /** What domains are started with; see libvirt/emulator.ts. */
  emulator: () => join(labDirectory(), 'bin', 'domain-emulator'),
  ssh: () => join(labDirectory(), 'ssh'),
  /** For ssh(1) and vmmig alike. Inside a host another file is mounted over it: addresses are reached directly there. */
  sshConfig: () => join(labDirectory(), 'ssh_config'),
  /** What a QEMU without libvirt runs to join its network device to the bridge. */
  joinBridge: () => join(labDirectory(), 'bin', 'join-bridge'),
  wanLinkParameters: () => join(labDirectory(), 'wan-link'),
  hostDirectory: (host: HostName) => join(labDirectory(), 'hosts', host),
};
