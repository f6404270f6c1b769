/** Whether libvirt knows a domain on this host, and what it says of it. */
import {
  type DomainAddress,
  type DomainDescription,
  type DomainState,
  domainJob,
  domainState,
  domainXml,
  inspectDomainServices,
  isActive,
  LibvirtError,
  listDomains,
  parseDomain,
  Virsh,
} from '../../hypervisor/index.js';
import { probeAgent } from '../probeAgent.js';
import type { GuestProbe } from '../protocol.js';
import { VirshQga } from './virshQga.js';

const answerTimeoutMs = 5_000;

/** @param noAgent - the guest's agent is not to be looked for */
export async function probeDomain(address: DomainAddress, noAgent: boolean, signal: AbortSignal): Promise<GuestProbe> {
  const nothing: GuestProbe = {
    ...{ state: null, memoryBytes: null, agent: null, agentVia: null, migrating: false, problem: null },
  };
  const { domain } = address;
  await using virsh = new Virsh(address.uri);
  const limits = { signal, timeoutMs: answerTimeoutMs };
  try {
    const found = await domainState(virsh, domain, limits);
    if (found === null) return nothing;
    const description = parseDomain(await domainXml(virsh, domain, limits));
    const { memoryBytes } = description;
    const job = isActive(found) ? await domainJob(virsh, domain, limits) : null;
    const migrating = job !== null && /migration/i.test(job);
    const isAsked = !noAgent && found.state === 'running';
    const agentVia = isAsked ? await findRoute(virsh, address, description, signal) : null;
    const agent = isAsked ? agentVia !== null : null;
    return { state: runState(found), memoryBytes, agent, agentVia, migrating, problem: null };
  } catch (thrown) {
    signal.throwIfAborted();
    if (!(thrown instanceof LibvirtError)) throw thrown;
    // A host without libvirt has no domains; one whose libvirt does not answer may.
    if (/Failed to connect socket|virsh ended|No such file/.test(thrown.message)) return nothing;
    return { ...nothing, state: 'unknown', problem: `libvirt does not answer: ${thrown.message}` };
  }
}

async function findRoute(
  virsh: Virsh,
  address: DomainAddress,
  description: DomainDescription,
  signal: AbortSignal,
): Promise<GuestProbe['agentVia']> {
  const limits = { signal, timeoutMs: answerTimeoutMs };
  const { portPath, qgaPath } = await inspectDomainServices(virsh, address, description, limits);
  return await probeAgent(portPath, qgaPath === null ? null : new VirshQga(address), signal);
}

/** Names of this host's domains; none where there is no libvirt. */
export async function knownDomains(signal: AbortSignal): Promise<string[]> {
  await using virsh = new Virsh('qemu:///system');
  try {
    return await listDomains(virsh, { signal, timeoutMs: answerTimeoutMs });
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof LibvirtError) return [];
    throw thrown;
  }
}

/** In QEMU's words, as for every guest. */
function runState(found: DomainState): string {
  const { state, reason } = found;
  if (!isActive(found)) return 'off';
  if (state === 'paused' && reason === 'migrating') return 'inmigrate';
  return state;
}
