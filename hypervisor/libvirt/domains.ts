/** Domains as a daemon knows them: which there are, what each of them does, and why. */
import { LibvirtError } from './errors.js';
import type { Virsh, VirshLimits } from './virsh.js';

/** Where a domain is found: the daemon as its own host calls it, and the domain's name. */
export interface DomainAddress {
  readonly uri: string;
  readonly domain: string;
}

/** In virsh's words: `running`, `paused`, `shut off`, …, and why: `booted`, `migrating`, `migrated`, `user`, … */
export interface DomainState {
  readonly state: string;
  readonly reason: string;
}

/** @returns null when the daemon has no such domain. @throws LibvirtError when it does not answer */
export async function domainState(virsh: Virsh, domain: string, limits: VirshLimits = {}): Promise<DomainState | null> {
  try {
    const said = await virsh.run(['domstate', '--reason', '--domain', domain], limits);
    const [, state = said, reason = ''] = /^(.*?)(?: \((.*)\))?$/.exec(said) ?? [];
    return { state, reason };
  } catch (thrown) {
    if (thrown instanceof LibvirtError && thrown.code === 'VMMIG_LIBVIRT_NO_DOMAIN') return null;
    throw thrown;
  }
}

/** Whether it has a process, whatever that does. */
export function isActive(found: DomainState | null): boolean {
  return found !== null && found.state !== 'shut off' && found.state !== 'crashed';
}

/** What the daemon calls the domain's process, and no other one; null while it has none. @throws LibvirtError */
export async function domainId(virsh: Virsh, domain: string, limits: VirshLimits = {}): Promise<string | null> {
  try {
    const said = await virsh.run(['domid', '--domain', domain], limits);
    return said === '-' ? null : said;
  } catch (thrown) {
    if (thrown instanceof LibvirtError && thrown.code === 'VMMIG_LIBVIRT_NO_DOMAIN') return null;
    throw thrown;
  }
}

/** Names of all domains, running or not. */
export async function listDomains(virsh: Virsh, limits: VirshLimits = {}): Promise<string[]> {
  const said = await virsh.run(['list', '--all', '--name'], limits);
  return said
    .split('\n')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

/** The live XML of a domain that runs, with what only root may see; else its configuration. */
export async function domainXml(virsh: Virsh, domain: string, limits: VirshLimits = {}): Promise<string> {
  return await virsh.run(['dumpxml', '--security-info', '--domain', domain], limits);
}

/** Security models that the daemon confines its QEMUs by, beside file owners: `apparmor`, `selinux`. */
export async function qemuConfinement(virsh: Virsh, limits: VirshLimits = {}): Promise<string[]> {
  const capabilities = await virsh.run(['capabilities'], limits);
  return ['apparmor', 'selinux'].filter((model) => capabilities.includes(`<model>${model}</model>`));
}

/** What libvirt is doing with the domain; null when nothing. */
export async function domainJob(virsh: Virsh, domain: string, limits: VirshLimits = {}): Promise<string | null> {
  let said: string;
  try {
    said = await virsh.run(['domjobinfo', '--domain', domain], limits);
  } catch (thrown) {
    // libvirt's words for a domain that is on its way to this host.
    if (thrown instanceof LibvirtError && /available only on the source host/.test(thrown.message))
      return 'Incoming migration';
    throw thrown;
  }
  const field = (name: string) => new RegExp(`^${name}:\\s*(.*?)\\s*$`, 'm').exec(said)?.[1];
  const type = field('Job type') ?? 'None';
  return type === 'None' ? null : (field('Operation') ?? type);
}
