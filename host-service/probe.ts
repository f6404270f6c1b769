/** Whether a guest's QEMU answers on this host, and what it says of itself. */
import * as z from 'zod';
import { QgaSocket } from '../guest-agent/qga/socket.js';
import { inspectGuestServices, migrationState } from '../hypervisor/index.js';
import { nobodyListens, QmpClient } from '../qmp/index.js';
import { probeDomain } from './guest/probeDomain.js';
import { probeAgent } from './probeAgent.js';
import type { GuestProbe, Params } from './protocol.js';

const summarySchema = z.object({ 'base-memory': z.number() });

const answerTimeoutMs = 2_000;

export async function probeGuest(guest: Params<'guest.probe'>, signal: AbortSignal): Promise<GuestProbe> {
  if (guest.libvirt !== undefined) return await probeDomain(guest.libvirt, guest.noAgent ?? false, signal);
  const nothing: GuestProbe = {
    ...{ state: null, memoryBytes: null, agent: null, agentVia: null, migrating: false, problem: null },
  };
  let qmp: QmpClient;
  try {
    qmp = await QmpClient.connect({ path: guest.qmpPath }, { signal, timeoutMs: answerTimeoutMs });
  } catch (thrown) {
    signal.throwIfAborted();
    if (nobodyListens(thrown)) return nothing;
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
    const isAsked = !guest.noAgent && status === 'running';
    const agentVia = isAsked ? await findRoute(qmp, guest.agentPath, signal) : null;
    return {
      state: status,
      memoryBytes: summarySchema.parse(size)['base-memory'],
      agent: isAsked ? agentVia !== null : null,
      agentVia,
      migrating: !migration.final,
      problem: null,
    };
  } finally {
    await qmp.close();
  }
}

async function findRoute(
  qmp: QmpClient,
  agentPath: string | null,
  signal: AbortSignal,
): Promise<GuestProbe['agentVia']> {
  const { portPath, qgaPath } = await inspectGuestServices(qmp, signal);
  return await probeAgent(agentPath ?? portPath, qgaPath === null ? null : new QgaSocket(qgaPath), signal);
}
