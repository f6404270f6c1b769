/**
 * Raising the lab, taking it down, and saying how it is. One of these runs at a time, across processes.
 *
 * `labUp` leaves a lab that is whole alone but for the WAN's settings. Anything less than whole (an `up` that was killed,
 * a host whose first process died, what a reboot left) is taken down first. `labDown` needs no memory of what was raised.
 */
import { constants, existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, open, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assetPath } from './assets.js';
import { compile } from './compile.js';
import { LabError } from './errors.js';
import { raiseGuestNetwork } from './guestNetwork.js';
import { findMembers, killMembers, labExec, startMember } from './host/members.js';
import { setUpHost } from './host/setup.js';
import { writeSshClientConfig, writeSshKeys } from './host/ssh.js';
import { qemuVersionOn } from './hostQemu.js';
import { isLibvirtWhole, setUpLibvirt } from './libvirt/daemons.js';
import { writeEmulator } from './libvirt/emulator.js';
import { labPrograms, libvirtPrograms, requirePrograms } from './programs.js';
import { qemuBinary } from './qemu.js';
import {
  defaultSettings,
  hostNames,
  type LabSettings,
  labDirectory,
  labPaths,
  networks,
  type WanSettings,
} from './settings.js';
import { type LabState, lockLab, readState, updateState, writeState } from './state.js';
import { healWan, isWanWhole, raiseWan, shapeWan } from './wan/wan.js';

export interface LabStatus {
  /** `broken` is what `labUp` would repair: some of it runs, or something was left behind. */
  condition: 'up' | 'down' | 'broken';
  directory: string;
  /** Present when up. */
  state: LabState | null;
}

const members = ['wan', ...hostNames] as const;

/** Shows that a directory is the lab's to delete. */
const marker = '.vmmig-lab';

/** Raises the lab, or repairs it. What is not given is as before, or as in `defaultSettings`. */
export async function labUp(options: Partial<LabSettings> & { signal?: AbortSignal } = {}): Promise<LabState> {
  const { signal, ...wanted } = options;
  if (process.getuid?.() !== 0) throw new LabError('VMMIG_LAB_UNSUPPORTED', 'The lab needs root: it makes namespaces');
  requirePrograms(labPrograms);
  await using _lock = await lockLab(signal);
  const before = await readState();
  const settings = { ...defaultSettings, ...pickSettings(before), ...wanted };
  if (settings.libvirt !== null && settings.qemu === 'mixed')
    throw new LabError('VMMIG_LAB_UNSUPPORTED', 'Domains name one emulator for both hosts: not with --qemu mixed');
  if (settings.libvirt === '9.0') requirePrograms(libvirtPrograms);
  const isSame = before?.qemu === settings.qemu && before.libvirt === settings.libvirt;
  if (before && isSame && (await isWhole(before))) {
    await healWan();
    await shapeWan(settings, signal);
    const state = { ...before, ...settings };
    await writeState(state);
    return state;
  }
  await remove();
  try {
    return await raise(settings, signal);
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Removes every trace: processes, namespaces, mounts, files; only the cache stays. Nothing to remove is not an error. */
export async function labDown(options: { signal?: AbortSignal } = {}): Promise<void> {
  await using _lock = await lockLab(options.signal);
  await remove();
}

export async function labStatus(): Promise<LabStatus> {
  const directory = labDirectory();
  const state = await readState();
  if (state && (await isWhole(state))) return { condition: 'up', directory, state };
  const isDown = findMembers().length === 0 && !existsSync(join(directory, marker));
  return { condition: isDown ? 'down' : 'broken', directory, state: null };
}

/** Changes the WAN of a lab that is up. */
export async function setWan(settings: Partial<WanSettings>, options: { signal?: AbortSignal } = {}): Promise<void> {
  await updateState(async (before) => {
    const state = { ...before, ...settings };
    await shapeWan(state, options.signal);
    return state;
  }, options.signal);
}

async function raise(settings: LabSettings, signal: AbortSignal | undefined): Promise<LabState> {
  for (const host of hostNames) await qemuBinary(qemuVersionOn(host, settings.qemu), signal ? { signal } : {});
  await prepareDirectory();
  const labHost = await compile('lab-host', ['lab/host/labHost.c'], { compiler: 'gcc', ...(signal ? { signal } : {}) });
  await copyFile(labHost, labPaths.labHost());
  await writeSshKeys();
  for (const member of members) await startMember(member, signal);
  await writeSshClientConfig();
  await raiseWan(settings, signal);
  await raiseGuestNetwork(signal);
  for (const host of hostNames) await setUpHost(host, signal);
  for (const host of hostNames) await waitForSsh(host, signal);
  const { libvirt } = settings;
  if (libvirt !== null) {
    await writeEmulator(qemuVersionOn('hostA', settings.qemu));
    await Promise.all(hostNames.map((host) => setUpLibvirt(host, libvirt, signal)));
  }
  const state: LabState = { ...settings, guests: {} };
  await writeState(state);
  return state;
}

async function prepareDirectory(): Promise<void> {
  const directory = labDirectory();
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, marker), '');
  for (const each of [labPaths.shared(), labPaths.bin()]) await mkdir(each, { recursive: true });
  await checkDirectIo();
  const wrapper = ['#!/bin/sh', `exec ${process.execPath} ${assetPath('dist/bin/vmmig.js')} "$@"`];
  await writeFile(labPaths.vmmig(), `${wrapper.join('\n')}\n`);
  await chmod(labPaths.vmmig(), 0o755);
}

/** Guests open their disks with O_DIRECT, which tmpfs, for one, does not have. */
async function checkDirectIo(): Promise<void> {
  const path = join(labPaths.shared(), '.direct-io');
  try {
    const file = await open(path, constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT, 0o600);
    await file.close();
  } catch (cause) {
    const message = `${labDirectory()} is on a file system without O_DIRECT; set VMMIG_LAB_DIR`;
    throw new LabError('VMMIG_LAB_UNSUPPORTED', message, { cause });
  }
  await rm(path);
}

async function remove(): Promise<void> {
  const directory = labDirectory();
  await killMembers();
  if (!existsSync(directory)) return;
  const names = await readdir(directory);
  if (names.length > 0 && !names.includes(marker)) {
    throw new LabError('VMMIG_LAB_UNSUPPORTED', `${directory} holds something else than a lab; set VMMIG_LAB_DIR`);
  }
  // The marker last: a removal that is interrupted can be repeated.
  for (const name of names) if (name !== marker) await rm(join(directory, name), { recursive: true, force: true });
  await rm(directory, { recursive: true, force: true });
}

/** All members run, their servers listen, and the WAN between them works. */
async function isWhole(settings: LabSettings): Promise<boolean> {
  const running = findMembers().map((member) => member.name);
  if (!members.every((name) => running.includes(name))) return false;
  for (const host of hostNames) if (!(await sshListens(host))) return false;
  if (settings.libvirt !== null && !(await isLibvirtWhole())) return false;
  return isWanWhole();
}

async function waitForSsh(host: (typeof hostNames)[number], signal: AbortSignal | undefined): Promise<void> {
  for (const deadline = Date.now() + 10_000; !(await sshListens(host)); await sleep(50)) {
    signal?.throwIfAborted();
    if (Date.now() > deadline) throw new LabError('VMMIG_LAB_TIMEOUT', `The SSH server of ${host} does not start`);
  }
}

async function sshListens(host: (typeof hostNames)[number]): Promise<boolean> {
  const probe = `socat -u OPEN:/dev/null TCP:${networks[host].address}:22`;
  return !(await labExec(host, ['sh', '-c', probe], { reject: false })).failed;
}

function pickSettings(state: LabState | null): Partial<LabSettings> {
  if (!state) return {};
  return { rttMs: state.rttMs, rateBps: state.rateBps, qemu: state.qemu, libvirt: state.libvirt };
}
