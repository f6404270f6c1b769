/** Whether the destination's QEMU exists and can be the guest's machine. */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Finding } from '../../finding.js';
import { checkCpu } from './cpu.js';
import type { DestinationPlan } from './plan.js';

const TIMEOUT_MS = 10_000;
/** Not execa: a migration waits for this service to be loaded, and this is all it would be needed for. */
const run = promisify(execFile);

export async function checkQemu(plan: DestinationPlan, signal?: AbortSignal): Promise<Finding[]> {
  const binary = plan.commandLine.argv[0] ?? '';
  const options = { timeout: TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
  try {
    const [version, machines] = await Promise.all([
      run(binary, ['-version'], options),
      run(binary, ['-machine', 'help'], options),
    ]);
    const found = [
      ...checkMachineType(plan.machineType, machines.stdout, binary),
      ...checkVersion(plan.sourceVersion, version.stdout, binary),
      ...(await checkAccelerator(plan)),
    ];
    // What cannot make the machine cannot make its processor, and has said so.
    if (found.some(({ severity }) => severity === 'refuse')) return found;
    return [...found, ...(await checkCpu(plan, versionIn(version.stdout), options.signal))];
  } catch (error) {
    signal?.throwIfAborted();
    const message = `cannot run ${binary}: ${(error as Error).message.trim()}`;
    return [refuse(message, "install QEMU, or name the host's QEMU in the inventory")];
  }
}

function checkMachineType(machineType: string, help: string, binary: string): Finding[] {
  const known = help.split('\n').some((line) => line.split(/\s/)[0] === machineType);
  if (known) return [];
  return [refuse(`${binary} does not know the machine type ${machineType}`, 'install a QEMU as new as the source has')];
}

function checkVersion(source: DestinationPlan['sourceVersion'], text: string, binary: string): Finding[] {
  const { major, minor } = versionIn(text);
  if (Number.isNaN(major)) return [refuse(`${binary} is no QEMU`, 'name a QEMU in the inventory')];
  const isOlder = major < source.major || (major === source.major && minor < source.minor);
  if (!isOlder) return [];
  const message = `the destination's QEMU ${major}.${minor} is older than the source's ${source.major}.${source.minor}`;
  const remedy = 'use the same version or a newer one: QEMU promises only to load what older versions sent';
  return [{ severity: 'warn', code: 'VMMIG_DESTINATION_QEMU', message, remedy }];
}

/** NaN where there is none. */
function versionIn(text: string): { major: number; minor: number } {
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(text) ?? [];
  return { major: Number(major), minor: Number(minor) };
}

async function checkAccelerator({ accelerator }: DestinationPlan): Promise<Finding[]> {
  if (accelerator !== 'kvm') return [];
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    return [];
  } catch {
    return [
      refuse(
        'the guest runs under KVM and /dev/kvm cannot be opened',
        'load the KVM module, or give access to /dev/kvm',
      ),
    ];
  }
}

function refuse(message: string, remedy: string): Finding {
  return { severity: 'refuse', code: 'VMMIG_DESTINATION_QEMU', message, remedy };
}
