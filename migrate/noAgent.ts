/** What preflight has to say of a guest without an agent. */
import type { AgentSearch } from '../host-service/protocol.js';
import type { Finding } from './report.js';

/** Says what an agent would have saved, as far as the guest tells, and what keeps vmmig from bringing one. */
export function noAgent(vm: string, agent: AgentSearch & { found: false }): Finding {
  const { isBlocked, pageCacheBytes, reason } = agent;
  const mebibytes = pageCacheBytes === null ? null : Math.round(pageCacheBytes / 2 ** 20).toLocaleString('en');
  const cache = mebibytes === null ? 'page cache' : `page cache, some ${mebibytes} MiB by its own count,`;
  return {
    severity: 'warn',
    code: 'VMMIG_PREFLIGHT_NO_AGENT',
    message: `no agent answers in ${vm}: its ${cache} will be sent over the network (${reason})`,
    remedy: isBlocked
      ? 'let qemu-guest-agent run programs and open files in the guest, or run vmmig-agent there on a port named org.vmmig.agent.0'
      : 'run qemu-guest-agent in the guest, or vmmig-agent on a virtio-serial port named org.vmmig.agent.0',
  };
}
