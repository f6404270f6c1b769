/** Whether libvirt knows a domain on this host, and what it says of it. */
import {
  type DomainAddress,
  type DomainState,
  domainJob,
  domainState,
  domainXml,
  isActive,
  LibvirtError,
  listDomains,
  parseDomain,
  Virsh,
} from '../../hypervisor/index.js';
import type { GuestProbe } from '../protocol.js';

const answerTimeoutMs = 5_000;
const agentPort = 'org.vmmig.agent.0';

export async function probeDomain({ uri, domain }: DomainAddress, signal: AbortSignal): Promise<GuestProbe> {
  const nothing: GuestProbe = { state: null, memoryBytes: null, agent: null, migrating: false, problem: null };
  await using virsh = new Virsh(uri);
  const limits = { signal, timeoutMs: answerTimeoutMs };
  try {
    const found = await domainState(virsh, domain, limits);
    if (found === null) return nothing;
    const { memoryBytes, channels } = parseDomain(await domainXml(virsh, domain, limits));
    const job = isActive(found) ? await domainJob(virsh, domain, limits) : null;
    const migrating = job !== null && /migration/i.test(job);
    const agent = channels.has(agentPort) ? null : false;
    return { state: runState(found), memoryBytes, agent, migrating, problem: null };
  } catch (thrown) {
    signal.throwIfAborted();
    if (!(thrown instanceof LibvirtError)) throw thrown;
    // A host without libvirt has no domains; one whose libvirt does not answer may.
    if (/Failed to connect socket|virsh ended|No such file/.test(thrown.message)) return nothing;
    return { ...nothing, state: 'unknown', problem: `libvirt does not answer: ${thrown.message}` };
  }
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
