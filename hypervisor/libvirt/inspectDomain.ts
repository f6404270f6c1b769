/** A domain in the terms in which every guest is inspected: what QEMU says, and what only libvirt knows. */
import { readFile } from 'node:fs/promises';
import { HypervisorError } from '../errors.js';
import { inspectGuest } from '../inspect.js';
import type { GuestInspection } from '../inspection.js';
import { processOfThread } from '../monitorProcess.js';
import type { QmpMonitor } from '../qmpMonitor.js';
import type { DomainAddress } from './domains.js';
import type { DomainDescription } from './domainXml.js';

const agentPort = 'org.vmmig.agent.0';

export async function inspectDomain(
  monitor: QmpMonitor,
  { domain }: DomainAddress,
  { channels }: DomainDescription,
  signal?: AbortSignal,
): Promise<GuestInspection> {
  const agentPath = channels.get(agentPort)?.path ?? null;
  const findPid = (threadId: number) => domainPid(domain, threadId);
  const options = signal === undefined ? {} : { signal };
  return await inspectGuest({ name: domain, qmpPath: '', agentPath, qmp: monitor, findPid, ...options });
}

/** In another PID namespace a thread's number would be someone else's: libvirt has the domain's name in the arguments. */
async function domainPid(domain: string, threadId: number): Promise<number> {
  const pid = await processOfThread(threadId);
  const argv = pid === null ? '' : await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  if (
    pid !== null &&
    argv.split('\0').some((word) => word.startsWith(`guest=${domain},`) || word === `guest=${domain}`)
  )
    return pid;
  throw new HypervisorError('VMMIG_INSPECT', `cannot find the QEMU process of ${domain}: does it run in a container?`);
}
