/** What the lab remembers on disk: how it was raised and which guests were started. Written whole or not at all. */
import { createHash } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { cacheDir } from './cache.js';
import { LabError } from './errors.js';
import { acquireFileLock } from './fileLock.js';
import { guestPaths } from './guest/arguments.js';
import { qemuVersionOn } from './hostQemu.js';
import { qemuBinary } from './qemu.js';
import {
  defaultSettings,
  guestDirectory,
  type HostName,
  hostNames,
  type LabSettings,
  labDirectory,
  labPaths,
  networks,
} from './settings.js';

export interface LabGuest {
  /** The host it was started on; where it is now, only QEMU knows. */
  host: HostName;
  /** Disk images by disk name. */
  disks: Record<string, string>;
  /** It is a domain, which libvirt knows all about: the inventory does not name it. */
  isDomain?: true;
  /** False where there is only qemu-guest-agent. */
  hasAgentPort?: boolean;
}

export interface LabState extends LabSettings {
  guests: Record<string, LabGuest>;
}

/** Null when the lab is not up, or did not get so far. */
export async function readState(): Promise<LabState | null> {
  try {
    return { ...defaultSettings, ...(JSON.parse(await readFile(labPaths.state(), 'utf8')) as LabState) };
  } catch {
    return null;
  }
}

/** Changes the state of a lab that is up, alone; see `lockLab`. `VMMIG_LAB_DOWN` when it is not. */
export async function updateState(
  change: (state: LabState) => LabState | Promise<LabState>,
  signal?: AbortSignal,
): Promise<void> {
  await using _lock = await lockLab(signal);
  await writeState(await change(await requireState()));
}

/** The state of a lab that is up; `VMMIG_LAB_DOWN` when it is not. */
export async function requireState(): Promise<LabState> {
  const state = await readState();
  if (!state) throw new LabError('VMMIG_LAB_DOWN', 'The lab is not up: run "vmmig lab up"');
  return state;
}

/** One change of the lab at a time, across processes. The lock is not in the lab directory, which comes and goes. */
export function lockLab(signal: AbortSignal | undefined): Promise<AsyncDisposable> {
  const name = createHash('sha256').update(labDirectory()).digest('hex').slice(0, 16);
  return acquireFileLock(join(cacheDir(), `.lab-${name}.lock`), { timeoutMs: 120_000, ...(signal ? { signal } : {}) });
}

/** Saves the state and the inventory that follows from it. The caller holds the lock. */
export async function writeState(state: LabState): Promise<void> {
  await replace(labPaths.inventory(), stringify(await inventory(state)));
  await replace(labPaths.state(), `${JSON.stringify(state, null, 2)}\n`);
}

async function inventory(state: LabState): Promise<object> {
  const hosts = hostNames.map(async (host) => [
    host,
    {
      ssh: host,
      sshConfig: labPaths.sshConfig(),
      address: networks[host].address,
      vmmig: labPaths.vmmig(),
      stateDir: join(labPaths.hostDirectory(host), 'state'),
      runDir: '/run/vmmig',
      qemu: (await qemuBinary(qemuVersionOn(host, state.qemu))).command,
    },
  ]);
  const direct = Object.entries(state.guests).filter(([, guest]) => !guest.isDomain);
  const guests = direct.map(([name, guest]) => {
    const paths = guestPaths(guestDirectory, name);
    const disks = Object.fromEntries(Object.entries(guest.disks).map(([disk, path]) => [disk, { path }]));
    const agent = guest.hasAgentPort === false ? {} : { agent: paths.agentPath };
    return [name, { host: guest.host, qmp: paths.qmpPath, ...agent, disks }];
  });
  return { hosts: Object.fromEntries(await Promise.all(hosts)), guests: Object.fromEntries(guests) };
}

async function replace(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}
