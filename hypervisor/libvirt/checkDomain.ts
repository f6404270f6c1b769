/** What libvirt would refuse, or the destination lacks, found before anything is changed. */
import { access } from 'node:fs/promises';
import { checkDisk } from '../direct/preflight/disks.js';
import { checkMemory } from '../direct/preflight/memory.js';
import type { DestinationDisk } from '../direct/preflight/plan.js';
import { checkUserfaultfdOf } from '../direct/preflight/userfaultfd.js';
import type { Finding } from '../finding.js';
import type { RamBlockInfo } from '../ramBlocks.js';
import type { DomainInspection } from './domainInspection.js';
import { type DomainAddress, domainState, isActive } from './domains.js';
import { LibvirtError } from './errors.js';
import { qemuUser } from './qemuUser.js';
import { Virsh, type VirshLimits } from './virsh.js';

/** All reasons on the source that other guests do not know. @param allowed - what libvirt is told to do all the same */
export function checkDomain(domain: DomainInspection, allowed: { readonly unsafe: boolean }): Finding[] {
  const { name, job, snapshots, blockJobs, hostDevices, unsharedImages } = domain;
  const findings: Finding[] = [];
  if (job !== null)
    findings.push(
      refusal(
        'VMMIG_DOMAIN_BUSY',
        `libvirt is busy with ${name}: ${job}`,
        'wait for it to end, or end it: virsh domjobabort',
      ),
    );
  for (const kind of blockJobs)
    findings.push(
      refusal(
        'VMMIG_DOMAIN_BUSY',
        `${name} has a ${kind} job on one of its disks`,
        'wait for it to end, or end it: virsh blockjob --abort',
      ),
    );
  if (snapshots > 0)
    findings.push(
      refusal(
        'VMMIG_DOMAIN_SNAPSHOT',
        `${name} has snapshots (${snapshots}), with which libvirt does not migrate it`,
        'delete them: virsh snapshot-delete --metadata drops only libvirt’s record',
      ),
    );
  for (const device of hostDevices)
    findings.push(
      refusal(
        'VMMIG_HOST_DEVICE',
        `${name} has a ${device}, which stays on this host`,
        'detach it first: virsh detach-device',
      ),
    );
  if (unsharedImages.length > 0 && !allowed.unsafe) {
    const message = `libvirt does not take the storage of ${unsharedImages.join(', ')} for shared, and would call the move unsafe`;
    findings.push(refusal('VMMIG_LIBVIRT_UNSAFE', message, 'if both hosts see the same images, say --unsafe'));
  }
  return findings;
}

/** Plain data: it travels to the destination as JSON. */
export interface DomainPlan {
  readonly domain: DomainInspection;
  /** Where it is to go: the daemon there, and its name. */
  readonly to: DomainAddress;
  readonly disks: readonly DestinationDisk[];
  readonly ramBlocks: readonly RamBlockInfo[];
  /** It is to run there before it has all its memory. */
  readonly postcopy: boolean;
}

/** Runs on the destination. */
export async function checkDomainDestination(
  { domain, to, disks, ramBlocks, postcopy }: DomainPlan,
  limits: VirshLimits = {},
): Promise<Finding[]> {
  await using virsh = new Virsh(to.uri);
  try {
    const findings = await Promise.all([
      checkName(virsh, domain, to, limits),
      checkEmulator(virsh, domain, limits),
      postcopy ? checkUser(domain) : [],
      checkMemory({ ramBlocks }),
      ...disks.map(checkDisk),
      ...domain.media.map(({ target, path }) => checkMedium(domain.name, target, path)),
    ]);
    return findings.flat();
  } catch (thrown) {
    if (!(thrown instanceof LibvirtError) || thrown.code !== 'VMMIG_LIBVIRT_UNREACHABLE') throw thrown;
    return [
      refusal(
        'VMMIG_DOMAIN_DESTINATION',
        `libvirt does not answer on the destination: ${thrown.message}`,
        'start libvirtd there (or virtqemud), and see that root may use it',
      ),
    ];
  }
}

async function checkName(
  virsh: Virsh,
  { uuid }: DomainInspection,
  { domain }: DomainAddress,
  limits: VirshLimits,
): Promise<Finding[]> {
  const [found, namesake] = await Promise.all([
    domainState(virsh, domain, limits),
    virsh.run(['domname', '--domain', uuid], limits).catch(orNoDomain),
  ]);
  if (namesake !== null && namesake.trim() !== domain)
    return [
      refusal(
        'VMMIG_DOMAIN_DESTINATION',
        `the destination knows this domain by the name ${namesake.trim()}, and libvirt gives a domain no second one`,
        `undefine it there, or leave it that name: --dest-name ${namesake.trim()}`,
      ),
    ];
  if (found === null) return [];
  if (isActive(found))
    return [
      refusal(
        'VMMIG_DOMAIN_DESTINATION',
        `the destination has a domain ${domain} already, which is ${found.state}`,
        'give this one another name there (--dest-name), or see which of the two is the right one',
      ),
    ];
  const theirs = await virsh.run(['domuuid', '--domain', domain], limits);
  if (theirs.trim() === uuid) return [];
  return [
    refusal(
      'VMMIG_DOMAIN_DESTINATION',
      `the destination has another domain of the name ${domain}, shut off`,
      'undefine that one, or give this one another name there (--dest-name)',
    ),
  ];
}

function orNoDomain(thrown: unknown): null {
  if (thrown instanceof LibvirtError && thrown.code === 'VMMIG_LIBVIRT_NO_DOMAIN') return null;
  throw thrown;
}

async function checkEmulator(
  virsh: Virsh,
  { emulator, arch, machine, type }: DomainInspection,
  limits: VirshLimits,
): Promise<Finding[]> {
  const binary = emulator === null ? [] : ['--emulatorbin', emulator];
  try {
    await virsh.run(['domcapabilities', ...binary, '--arch', arch, '--machine', machine, '--virttype', type], limits);
    return [];
  } catch (thrown) {
    if (!(thrown instanceof LibvirtError) || thrown.code === 'VMMIG_LIBVIRT_UNREACHABLE') throw thrown;
    const message = `libvirt cannot start ${machine} with ${emulator ?? 'its emulator'} on the destination: ${thrown.message}`;
    return [
      refusal(
        'VMMIG_DESTINATION_QEMU',
        message,
        'install the same or a newer QEMU there, or name another emulator with --xml',
      ),
    ];
  }
}

async function checkUser({ emulator, user }: DomainInspection): Promise<Finding[]> {
  return await checkUserfaultfdOf({ binary: emulator ?? '', user: user ?? (await qemuUser()) });
}

async function checkMedium(name: string, target: string, path: string): Promise<Finding[]> {
  const isThere = await access(path).then(
    () => true,
    () => false,
  );
  if (isThere) return [];
  return [
    refusal(
      'VMMIG_DISK_IMAGE',
      `the medium in ${target}, ${path}, is not on the destination`,
      `eject it: virsh change-media ${name} ${target} --eject`,
    ),
  ];
}

function refusal(code: Finding['code'], message: string, remedy: string): Finding {
  return { severity: 'refuse', code, message, remedy };
}
