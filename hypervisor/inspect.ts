/** Looks at a guest through its monitor and at its process through /proc, changing nothing. */
import { QmpClient } from '../qmp/index.js';
import { inspectBlockDevices } from './blockDevices.js';
import { cpuFeatures } from './cpuFeatures.js';
import { addedDevices, findPort } from './devices.js';
import { HypervisorError } from './errors.js';
import { parseGpaMap } from './gpaMap.js';
import type { GuestInspection } from './inspection.js';
import { qemuPid } from './monitorProcess.js';
import { inspectProcess } from './process.js';
import type { QmpMonitor } from './qmpMonitor.js';
import { parseRamBlocks } from './ramBlocks.js';

/** The name of the virtio-serial port that the guest agent speaks on. */
const AGENT_PORT = 'org.vmmig.agent.0';

export interface InspectOptions {
  /** The operator's name of the guest. */
  readonly name: string;
  readonly qmpPath: string;
  /** The host's end of the guest agent's port, if the operator named it. */
  readonly agentPath?: string | null;
  /** A connection to the monitor, for who has one: a monitor serves one client at a time. */
  readonly qmp?: QmpMonitor;
  /** Finds QEMU by one of its threads, where the monitor's socket is another program's. */
  readonly findPid?: (threadId: number) => Promise<number>;
  readonly signal?: AbortSignal;
}

/**
 * Runs on the guest's host, in the same PID and mount namespaces.
 * @throws HypervisorError VMMIG_INSPECT, or QmpError when the monitor does not answer
 */
export async function inspectGuest(options: InspectOptions): Promise<GuestInspection> {
  const { name, qmpPath, signal } = options;
  await using opened = options.qmp === undefined ? await QmpClient.connect({ path: qmpPath }, { signal }) : null;
  const qmp = options.qmp ?? opened!;

  const [version, status, kvm, cpus, machineType, backends, size, migration, ramblock, mtree] = await Promise.all([
    qmp.execute('query-version', {}, { signal }),
    qmp.execute('query-status', {}, { signal }),
    qmp.execute('query-kvm', {}, { signal }),
    qmp.execute('query-cpus-fast', {}, { signal }),
    qmp.execute('qom-get', { path: '/machine', property: 'type' }, { signal }),
    qmp.execute('query-memdev', {}, { signal }),
    qmp.execute('query-memory-size-summary', {}, { signal }),
    qmp.execute('query-migrate', {}, { signal }),
    qmp.execute('human-monitor-command', { 'command-line': 'info ramblock' }, { signal }),
    qmp.execute('human-monitor-command', { 'command-line': 'info mtree -f' }, { signal }),
  ]);
  const cpu = cpus[0];
  if (cpu === undefined || typeof machineType !== 'string') {
    throw new HypervisorError('VMMIG_INSPECT', `what QEMU says of ${name} makes no sense: no CPU or no machine type`);
  }
  const findPid = options.findPid ?? ((threadId: number) => qemuPid(qmpPath, threadId));
  const process = await inspectProcess(await findPid(cpu['thread-id']));
  const [features, cpuType, disks, devices, agentPath] = await Promise.all([
    cpuFeatures(qmp, cpu['qom-path'], signal),
    qmp.execute('qom-get', { path: cpu['qom-path'], property: 'type' }, { signal }),
    inspectBlockDevices(qmp, process.cwd, signal),
    addedDevices(qmp, signal),
    options.agentPath ?? null,
  ]);
  const blocks = parseRamBlocks(ramblock);
  return {
    name,
    qmpPath,
    agentPath: agentPath ?? (await findPort(qmp, devices, AGENT_PORT, signal))?.path ?? null,
    qemuVersion: { ...version.qemu, package: version.package },
    process,
    machineType: machineType.replace(/-machine$/, ''),
    accelerator: kvm.enabled ? 'kvm' : 'other',
    cpuType: String(cpuType),
    cpuCount: cpus.length,
    cpuFeatures: features,
    runState: status.status,
    running: status.running,
    memory: {
      totalBytes: totalMemory(size),
      blocks,
      gpaMap: parseGpaMap(mtree, blocks),
      backends: backends.map(({ id, size: sizeBytes, share }) => ({ id: id ?? '', sizeBytes, shared: share })),
    },
    disks,
    deviceTypes: [...new Set(devices.map(({ type }) => type))].sort(),
    migration: { status: migration.status ?? 'none', blockers: migration['blocked-reasons'] ?? [] },
  };
}

function totalMemory(summary: unknown): number {
  const sizes = summary as { 'base-memory': number; 'plugged-memory'?: number };
  return sizes['base-memory'] + (sizes['plugged-memory'] ?? 0);
}
