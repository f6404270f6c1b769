/** Tiny guests on the lab's hosts. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assetPath } from './assets.js';
import { LabError } from './errors.js';
import { type GuestDisk, type GuestPaths, guestArguments, guestPaths } from './guest/arguments.js';
import { createDataDisk, type DataDiskOptions } from './guest/dataDisk.js';
import { answersQmp, waitForBoot } from './guest/launch.js';
import { GuestShell } from './guest/shell.js';
import { buildTinyGuest, type TinyGuestOptions } from './guest/tinyGuest.js';
import { cancel, guestPathInHost, labExec, pathInMember, pidFromOutside } from './host/members.js';
import { qemuBinary } from './qemu.js';
import { guestDirectory, type HostName, labPaths } from './settings.js';
import { requireState, updateState } from './state.js';

export interface LabGuestOptions extends TinyGuestOptions {
  memoryMiB?: number;
  cpus?: number;
  /** What its data disk holds, made on the shared storage. Without it there is none. */
  data?: DataDiskOptions;
  /** Further disks. */
  disks?: GuestDisk[];
  /** Keeps RAM in a shared file, private to the host, instead of QEMU's own memory. */
  sharedMemory?: boolean;
  /** Starts as a migration's destination, without touching disks or inventory. */
  incoming?: string;
  extraArgs?: string[];
}

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
  const state = await requireState();
  const { signal } = options;
  const agent = assetPath('dist/guest-agent/vmmig-agent');
  const image = await buildTinyGuest({ agentPath: existsSync(agent) ? agent : null, ...options });
  const dataPath = join(labPaths.shared(), `${name}-data.img`);
  if (options.data !== undefined && options.incoming === undefined) await createDataDisk(dataPath, options.data);
  const disks = [...(options.data !== undefined ? [{ id: 'data', path: dataPath }] : []), ...(options.disks ?? [])];
  const qemu = await qemuBinary(state.qemu, signal ? { signal } : {});
  const args = guestArguments(
    {
      ...options,
      dir: guestDirectory,
      name,
      disks,
      ...(options.sharedMemory ? { memoryFile: `/dev/shm/${name}.ram` } : {}),
    },
    image,
  );
  const inside = guestPaths(guestDirectory, name);
  const outside = guestPathsFromOutside(name, host);
  // A process forked inside the host belongs to the host's first process once its parent has ended.
  const launch = 'echo $$ >"$PID_FILE"; exec "$@" </dev/null >"$LOG" 2>&1';
  await labExec(host, ['setsid', '--fork', 'sh', '-c', launch, 'sh', qemu.command, ...qemu.args, ...args], {
    env: { PID_FILE: inside.pidPath, LOG: inside.logPath },
    ...cancel(signal),
  });
  await waitForQemu(name, host, signal);
  const pid = pidFromOutside(host, Number(await readFile(outside.pidPath, 'utf8')));
  if (options.incoming === undefined) {
    const shell = await waitForBoot(outside.shellPath, signal ? { signal } : {});
    await shell[Symbol.asyncDispose]();
    const paths = Object.fromEntries(disks.map((disk) => [disk.id, disk.path]));
    const guest = { host, disks: paths };
    await updateState((now) => ({ ...now, guests: { ...now.guests, [name]: guest } }), signal);
  }
  return { ...outside, pid };
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
