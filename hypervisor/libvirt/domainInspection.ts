/** What only libvirt knows of a domain, beyond what every guest is inspected for. Plain data: it travels as JSON. */
import { statfs } from 'node:fs/promises';
import type { QmpMonitor } from '../qmpMonitor.js';
import { type DomainAddress, domainJob } from './domains.js';
import type { DomainDescription } from './domainXml.js';
import { LibvirtError } from './errors.js';
import type { Virsh, VirshLimits } from './virsh.js';

export interface DomainInspection {
  readonly name: string;
  readonly uuid: string;
  /** `kvm` or `qemu`. */
  readonly type: string;
  readonly emulator: string | null;
  readonly arch: string;
  readonly machine: string;
  /** Images of files and devices, by the target that tells disks apart. */
  readonly images: readonly { readonly target: string; readonly path: string }[];
  /** Whom its QEMU runs as, where the domain settles that itself. */
  readonly user: string | null;
  /** Media in CD-ROM and floppy drives. */
  readonly media: readonly { readonly target: string; readonly path: string }[];
  readonly hostDevices: readonly string[];
  /** What libvirt is doing with the domain; null when nothing. */
  readonly job: string | null;
  readonly snapshots: number;
  /** Of QEMU: a snapshot, a copy or a commit that goes on. */
  readonly blockJobs: readonly string[];
  /** Writable images on file systems that libvirt does not take for shared. */
  readonly unsharedImages: readonly string[];
}

/** Those that libvirt takes for shared (src/util/virfile.c), by the kernel's magic numbers. */
const sharedFileSystems: ReadonlySet<number> = new Set([
  0x6969, // NFS
  0x01161970, // GFS2
  0x7461636f, // OCFS2
  0x5346414f, // AFS
  0xff534d42, // CIFS
  0xfe534d42, // SMB2
  0x00c36400, // CephFS
  0x47504653, // GPFS
  0x61636673, // ACFS
  0x73757245, // Coda
]);

export async function inspectForLibvirt(
  virsh: Virsh,
  monitor: QmpMonitor,
  { domain }: DomainAddress,
  description: DomainDescription,
  limits: VirshLimits = {},
): Promise<DomainInspection> {
  const { name, uuid, type, emulator, arch, machine, user, hostDevices, disks } = description;
  const job = await domainJob(virsh, domain, limits);
  const listed = await virsh.run(['snapshot-list', '--domain', domain, '--name'], limits).catch(orNone);
  const jobs = (await monitor.execute('query-block-jobs', {}, { signal: limits.signal })) as { type?: string }[];
  const images = disks.filter((disk) => disk.source?.type === 'file' && disk.source.path !== null);
  const withPath = disks.filter(({ source }) => source?.path != null);
  const written = images.filter(({ device, readOnly, shareable }) => device === 'disk' && !readOnly && !shareable);
  const isShared = await Promise.all(written.map(({ source }) => isOnSharedStorage(source!.path!)));
  return {
    ...{ name, uuid, type, emulator, arch, machine, user, hostDevices, job },
    images: withPath.map(({ target, source }) => ({ target, path: source!.path! })),
    media: mediaIn(disks),
    snapshots: listed.split('\n').filter((line) => line.trim() !== '').length,
    blockJobs: jobs.map((one) => one.type ?? 'block job'),
    unsharedImages: written.filter((_, index) => !isShared[index]).map(({ source }) => source!.path!),
  };
}

/** In CD-ROM and floppy drives. */
export function mediaIn(disks: DomainDescription['disks']): DomainInspection['media'] {
  return disks
    .filter(({ device, source }) => (device === 'cdrom' || device === 'floppy') && source?.type === 'file')
    .flatMap(({ target, source }) => (source?.path == null ? [] : [{ target, path: source.path }]));
}

async function isOnSharedStorage(path: string): Promise<boolean> {
  const found = await statfs(path).catch(() => null);
  return found !== null && sharedFileSystems.has(found.type >>> 0);
}

/** A domain may be of a kind that has no snapshots. */
function orNone(thrown: unknown): string {
  if (thrown instanceof LibvirtError && thrown.code === 'VMMIG_LIBVIRT_COMMAND') return '';
  throw thrown;
}
