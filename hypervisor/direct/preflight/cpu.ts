/**
 * Whether the guest's processor can be had here: a machine like the guest's is made, without memory or devices of its own
 * and without running it, and what its processor can do is compared.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Duplex, type Readable, type Writable } from 'node:stream';
import { QmpClient } from '../../../qmp/index.js';
import { type CpuFeatureWord, cpuFeatures, missingFeatures } from '../../cpuFeatures.js';
import type { Finding } from '../../finding.js';
import { parseOptions } from '../commandLine/options.js';
import type { DestinationPlan } from './plan.js';

const timeoutMs = 10_000;
const namesTold = 12;

/** @param version - of the QEMU here, which knows the machine type */
export async function checkCpu(
  plan: DestinationPlan,
  version: { readonly major: number; readonly minor: number },
  signal?: AbortSignal,
): Promise<Finding[]> {
  const { cpuFeatures: wanted = [], accelerator, sourceVersion } = plan;
  // TCG's processor is QEMU's own: the same on all hosts.
  const isSame = version.major === sourceVersion.major && version.minor === sourceVersion.minor;
  if (wanted.length === 0 || (accelerator !== 'kvm' && isSame)) return [];
  const limit = AbortSignal.timeout(timeoutMs);
  const present = await featuresHere(plan, signal === undefined ? limit : AbortSignal.any([signal, limit]));
  signal?.throwIfAborted();
  if (typeof present === 'string') return [found(`QEMU cannot make the guest's CPU on this host: ${present}`)];
  const missing = missingFeatures(wanted, present);
  if (missing.length === 0) return [];
  const more = missing.length > namesTold ? `, and ${missing.length - namesTold} more` : '';
  return [
    found(`the guest's CPU has what this host's cannot give it: ${missing.slice(0, namesTold).join(', ')}${more}`),
  ];
}

/** @returns what QEMU says when it cannot make such a processor */
async function featuresHere(
  { commandLine: { argv }, machineType, accelerator }: DestinationPlan,
  signal: AbortSignal,
): Promise<readonly CpuFeatureWord[] | string> {
  const model = parseOptions(argv.slice(1)).findLast(({ name }) => name === 'cpu')?.argument ?? null;
  const child = spawn(
    argv[0] ?? '',
    [
      ...['-machine', machineType, '-accel', accelerator === 'kvm' ? 'kvm' : 'tcg'],
      ...(model === null ? [] : ['-cpu', model]),
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-S', '-qmp', 'stdio'],
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-2048);
  });
  const ended = once(child, 'close').catch(() => {});
  try {
    return await ask(child, signal);
  } catch (error) {
    if (child.exitCode === null) child.kill('SIGKILL');
    await ended;
    return said.trim().replace(/\s*\n\s*/g, '; ') || (error as Error).message;
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

async function ask(child: ChildProcessByStdio<Writable, Readable, Readable>, signal: AbortSignal) {
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin });
  const qmp = await QmpClient.connect({ stream }, { signal });
  try {
    const [cpu] = await qmp.execute('query-cpus-fast', {}, { signal });
    return cpu === undefined ? [] : await cpuFeatures(qmp, cpu['qom-path'], signal);
  } finally {
    await qmp.close();
  }
}

function found(message: string): Finding {
  return {
    severity: 'refuse',
    code: 'VMMIG_CPU_MODEL',
    message,
    remedy: 'move it to a host with such a CPU, or start it with a CPU model (`-cpu`) that both hosts have',
  };
}
