/** Looks for a guest's agent; a guest without one is moved all the same. */
import { AgentError } from '../guest-agent/errors.js';
import { type GuestAgent, openAgent } from '../guest-agent/guestAgent.js';
import type { QgaTransport } from '../guest-agent/qga/transport.js';
import type { GuestServices } from '../hypervisor/index.js';
import type { AgentSearch } from './protocol.js';

export interface FoundAgent {
  readonly agent: GuestAgent | null;
  readonly search: AgentSearch;
}

/** @param openQga - makes the way to qemu-guest-agent, whoever has the host's end of its port */
export async function findAgent(
  port: string | null,
  { qgaPath, pageCacheBytes }: GuestServices,
  openQga: (path: string) => QgaTransport,
  signal: AbortSignal,
): Promise<FoundAgent> {
  const qga = qgaPath === null ? null : openQga(qgaPath);
  try {
    const agent = await openAgent({ port, qga }, { signal });
    return { agent, search: { found: true, version: agent.version, via: agent.via } };
  } catch (thrown) {
    if (!(thrown instanceof AgentError)) throw thrown;
    const isBlocked = thrown.code === 'VMMIG_AGENT_BLOCKED';
    return { agent: null, search: { found: false, reason: thrown.message, isBlocked, pageCacheBytes } };
  }
}
