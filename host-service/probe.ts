/** Whether a guest's QEMU answers on this host, and what it says of itself. */
import * as z from 'zod';
import { AgentClient } from '../guest-agent/client.js';
import { migrationState } from '../hypervisor/index.js';
import { QmpClient } from '../qmp/index.js';
import { probeDomain } from './guest/probeDomain.js';
import type { GuestAddress, GuestProbe } from './protocol.js';

const summarySchema = z.object({ 'base-memory': z.number() });

const answerTimeoutMs = 2_000;
const agentTimeoutMs = 500;

export async function probeGuest(guest: GuestAddress, signal: AbortSignal): Promise<GuestProbe> {
  if (guest.libvirt !== undefined) return await probeDomain(guest.libvirt, signal);
  const nothing: GuestProbe = { state: null, memoryBytes: null, agent: null, migrating: false, problem: null };
  let qmp: QmpClient;
  try {
    qmp = await QmpClient.connect({ path: guest.qmpPath }, { signal, timeoutMs: answerTimeoutMs });
  } catch (thrown) {
    signal.throwIfAborted();
    if (isAbsent(thrown)) return nothing;
    const problem = `QEMU does not answer on ${guest.qmpPath}: another program may hold the monitor`;
    return { ...nothing, state: 'unknown', problem };
  }
  try {
    const limits = { signal, timeoutMs: answerTimeoutMs };
    const [{ status }, size, migration] = await Promise.all([
      qmp.execute('query-status', {}, limits),
      qmp.execute('query-memory-size-summary', {}, limits),
      migrationState(qmp, limits),
    ]);
    return {
      state: status,
      memoryBytes: summarySchema.parse(size)['base-memory'],
      agent: guest.agentPath === null ? null : await hasAgent(guest.agentPath, signal),
      migrating: !migration.final,
      problem: null,
    };
  } finally {
    await qmp.close();
  }
}

async function hasAgent(path: string, signal: AbortSignal): Promise<boolean> {
  try {
    const agent = await AgentClient.connect({ path }, { signal, timeoutMs: agentTimeoutMs });
    await agent.close();
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/** No socket there, or nobody listening on it. */
function isAbsent(thrown: unknown): boolean {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    if ('code' in error && (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')) return true;
  }
  return false;
}
