/** What the lab remembers on disk: how it was raised and which guests were started. Written whole or not at all. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { guestPaths } from './guest/arguments.js';
import { qemuBinary } from './qemu.js';
import { guestDirectory, type HostName, hostNames, type LabSettings, labPaths, networks } from './settings.js';

export interface LabGuest {
  /** The host it was started on; where it is now, only QEMU knows. */
  host: HostName;
  /** Disk images by disk name. */
  disks: Record<string, string>;
}

export interface LabState extends LabSettings {
  guests: Record<string, LabGuest>;
}

/** Null when the lab is not up, or did not get so far. */
export async function readState(): Promise<LabState | null> {
  try {
    return JSON.parse(await readFile(labPaths.state(), 'utf8')) as LabState;
  } catch {
    return null;
  }
}

/** Saves the state and the inventory that follows from it. */
export async function writeState(state: LabState): Promise<void> {
  await replace(labPaths.inventory(), stringify(await inventory(state)));
  await replace(labPaths.state(), `${JSON.stringify(state, null, 2)}\n`);
}

async function inventory(state: LabState): Promise<object> {
  const { command } = await qemuBinary(state.qemu);
  const hosts = hostNames.map((host) => [
    host,
    {
      ssh: host,
      sshConfig: labPaths.sshConfig(),
      address: networks[host].address,
      vmmig: labPaths.vmmig(),
      stateDir: join(labPaths.hostDirectory(host), 'state'),
      runDir: '/run/vmmig',
      qemu: command,
    },
  ]);
  const guests = Object.entries(state.guests).map(([name, guest]) => {
    const paths = guestPaths(guestDirectory, name);
    const disks = Object.fromEntries(Object.entries(guest.disks).map(([disk, path]) => [disk, { path }]));
    return [name, { host: guest.host, qmp: paths.qmpPath, agent: paths.agentPath, disks }];
  });
  return { hosts: Object.fromEntries(hosts), guests: Object.fromEntries(guests) };
}

async function replace(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}
