/** Tiny guests on the lab's hosts. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assetPath } from './assets.js';
import { LabError } from './errors.js';
import { type GuestDevices, type GuestDisk, type GuestPaths, guestArguments, guestPaths } from './guest/arguments.js';
import { createDataDisk, type DataDiskOptions } from './guest/dataDisk.js';
import { answersQmp, waitForBoot } from './guest/launch.js';
import { GuestShell } from './guest/shell.js';
import { buildTinyGuest, type TinyGuestImage, type TinyGuestOptions } from './guest/tinyGuest.js';
import { cancel, guestPathInHost, labExec, pathInMember, pidFromOutside } from './host/members.js';
import { startDomain } from './libvirt/domains.js';
import type { DomainOptions } from './libvirt/domainXml.js';
import { qemuBinary } from './qemu.js';
import { guestDirectory, type HostName, labPaths } from './settings.js';
import { type LabGuest, requireState, updateState } from './state.js';

export interface LabGuestOptions extends TinyGuestOptions {
  memoryMiB?: number;
  cpus?: number;
  /** What its data disk holds, made on the shared storage. Without it there is none. */
  data?: DataDiskOptions;
  /** Further disks. */
  disks?: GuestDisk[];
  /** Keeps RAM in a shared file, private to the host, instead of QEMU's own memory. */
  sharedMemory?: boolean;
  /** Makes it a domain of the host's libvirt, with a persistent definition there. */
  libvirt?: boolean | DomainOptions;
  /** Starts as a migration's destination, without touching disks or inventory. Not for domains: libvirt does that. */
  incoming?: string;
  /** Not for domains. */
  extraArgs?: string[];
}

/** Of a domain `qmpPath` and `pidPath` name nothing: its monitor is libvirt's. */
export interface LabGuestHandle extends GuestPaths {
  /** QEMU's process id as this process sees it. */
  pid: number;
}

/**
 * Starts a guest on `host`, waits until it has booted (a destination: until QEMU answers) and enters it in the inventory.
 * The paths returned are reachable from outside the host. The agent is the one built in this project unless
 * `agentPath` says otherwise.
 */
export async function labGuestStart(
  name: string,
  host: HostName,
  options: LabGuestOptions = {},
): Promise<LabGuestHandle> {
  await requireState();
  const { signal } = options;
  const agent = assetPath('dist/guest-agent/vmmig-agent');
  const image = await buildTinyGuest({ agentPath: existsSync(agent) ? agent : null, ...options });
  const dataPath = join(labPaths.shared(), `${name}-data.img`);
  if (options.data !== undefined && options.incoming === undefined) await createDataDisk(dataPath, options.data);
  const disks = [...(options.data !== undefined ? [{ id: 'data', path: dataPath }] : []), ...(options.disks ?? [])];
  const devices = { ...options, dir: guestDirectory, name, disks };
  const pid = options.libvirt
    ? await startDomain(host, devices, image, domainOptions(options), signal)
    : await startQemu(host, devices, image, options);
  const outside = guestPathsFromOutside(name, host);
  if (options.incoming === undefined) {
    const shell = await waitForBoot(outside.shellPath, signal ? { signal } : {});
    await shell[Symbol.asyncDispose]();
    const paths = Object.fromEntries(disks.map((disk) => [disk.id, disk.path]));
    const guest: LabGuest = { host, disks: paths, ...(options.libvirt ? { isDomain: true } : {}) };
    await updateState((now) => ({ ...now, guests: { ...now.guests, [name]: guest } }), signal);
  }
  return { ...outside, pid };
}

/** Returns QEMU's process id when QEMU answers. */
async function startQemu(
  host: HostName,
  devices: GuestDevices,
  image: TinyGuestImage,
  { sharedMemory, signal }: LabGuestOptions,
): Promise<number> {
  const qemu = await qemuBinary((await requireState()).qemu, signal ? { signal } : {});
  const memoryFile = sharedMemory ? { memoryFile: `/dev/shm/${devices.name}.ram` } : {};
  const args = guestArguments({ ...devices, ...memoryFile }, image);
  const inside = guestPaths(guestDirectory, devices.name);
  // A process forked inside the host belongs to the host's first process once its parent has ended.
  const launch = 'echo $$ >"$PID_FILE"; exec "$@" </dev/null >"$LOG" 2>&1';
  await labExec(host, ['setsid', '--fork', 'sh', '-c', launch, 'sh', qemu.command, ...qemu.args, ...args], {
    env: { PID_FILE: inside.pidPath, LOG: inside.logPath },
    ...cancel(signal),
  });
  await waitForQemu(devices.name, host, signal);
  return pidFromOutside(host, Number(await readFile(pathInMember(host, inside.pidPath), 'utf8')));
}

function domainOptions({ libvirt, sharedMemory, incoming, extraArgs }: LabGuestOptions): DomainOptions {
  if (incoming !== undefined || extraArgs !== undefined) {
    throw new LabError('VMMIG_LAB_UNSUPPORTED', 'A domain takes no arguments for QEMU: libvirt gives them');
  }
  return { ...(sharedMemory ? { memory: 'file' } : {}), ...(typeof libvirt === 'object' ? libvirt : {}) };
}

/** Connects to the shell of a guest on `host`, which must run there. One connection at a time reaches a guest. */
export function labGuestShell(
  name: string,
  host: HostName,
  options: { signal?: AbortSignal } = {},
): Promise<GuestShell> {
  return GuestShell.connect(guestPathInHost(host, `${name}.shell`), options);
}

/** A guest's sockets and files in `host` as seen from outside. */
export function guestPathsFromOutside(name: string, host: HostName): GuestPaths {
  return guestPaths(pathInMember(host, guestDirectory), name);
}

async function waitForQemu(name: string, host: HostName, signal: AbortSignal | undefined): Promise<void> {
  const paths = guestPathsFromOutside(name, host);
  for (const deadline = Date.now() + 10_000; !(await answersQmp(paths.qmpPath)); await sleep(20)) {
    signal?.throwIfAborted();
    // Written by the shell that became QEMU; QEMU removes it when it ends in good order.
    const pid = (await readFile(paths.pidPath, 'utf8').catch(() => '')).trim();
    const log = await readFile(paths.logPath, 'utf8').catch(() => '');
    const ended = pid === '' ? log !== '' : !existsSync(pathInMember(host, `/proc/${pid}`));
    if (ended || Date.now() > deadline) {
      throw new LabError('VMMIG_LAB_GUEST', `QEMU for ${name} did not start: ${log.trim()}`);
    }
  }
}
