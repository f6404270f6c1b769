/** Starts a tiny guest as a child of this process, without the lab's hosts: for tests of what needs one real QEMU. */
import { spawn } from 'node:child_process';
import { mkdir, open, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '../../qmp/index.js';
import { LabError } from '../errors.js';
import { type QemuVersion, qemuBinary } from '../qemu.js';
import { type GuestDevices, type GuestPaths, guestArguments, guestPaths } from './arguments.js';
import { GuestShell } from './shell.js';
import { buildTinyGuest, type TinyGuestImage, type TinyGuestOptions } from './tinyGuest.js';

export interface TinyGuestLaunch extends GuestDevices, TinyGuestOptions {
  /** Default `7.2`. */
  qemu?: QemuVersion;
  /** A guest built before; otherwise it is built from the options given here. */
  image?: TinyGuestImage;
}

export interface RunningGuest extends GuestPaths, AsyncDisposable {
  pid: number;
  /** The command line, the program first. */
  argv: string[];
  /** Settles when QEMU has ended, for whatever reason. */
  exited: Promise<void>;
}

/**
 * Starts QEMU and returns when its QMP socket answers; the guest then boots (see `waitForBoot`). Disposing
 * kills it and waits; it also dies with this process. A QEMU that does not start is a `VMMIG_LAB_GUEST` with what it said.
 */
export async function startTinyGuest(launch: TinyGuestLaunch): Promise<RunningGuest> {
  const image = launch.image ?? (await buildTinyGuest(launch));
  const qemu = await qemuBinary(launch.qemu ?? '7.2', launch.signal ? { signal: launch.signal } : {});
  await mkdir(launch.dir, { recursive: true });
  const paths = guestPaths(launch.dir, launch.name);
  const argv = [qemu.command, ...qemu.args, ...guestArguments(launch, image)];
  await using log = await open(paths.logPath, 'w');
  // setpriv becomes QEMU by exec, so the pid is QEMU's own.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...argv], {
    stdio: ['ignore', log.fd, log.fd],
    env: { ...process.env, ...qemu.env },
  });
  let ended = false;
  const exited = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  }).then(() => {
    ended = true;
  });
  const dispose = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  try {
    const deadline = Date.now() + 10_000;
    while (!(await answersQmp(paths.qmpPath))) {
      launch.signal?.throwIfAborted();
      if (ended || Date.now() > deadline) {
        throw new LabError('VMMIG_LAB_GUEST', `QEMU did not start: ${(await readFile(paths.logPath, 'utf8')).trim()}`);
      }
      await sleep(20);
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  return { ...paths, pid: child.pid!, argv, exited, [Symbol.asyncDispose]: dispose };
}

/** Connects to a guest's shell and waits until the guest answers. */
export async function waitForBoot(
  shellPath: string,
  options: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<GuestShell> {
  const shell = await GuestShell.connect(shellPath, options);
  try {
    await shell.output('true', { timeoutMs: 60_000, ...options });
    return shell;
  } catch (error) {
    await shell[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Whether a QEMU answers commands on the QMP socket at `path`: it does when it has made all its devices. The greeting
 * alone may come from a QEMU that is about to find that it cannot.
 */
export async function answersQmp(path: string): Promise<boolean> {
  try {
    const client = await QmpClient.connect({ path }, { timeoutMs: 1000 });
    await client.close();
    return true;
  } catch {
    return false;
  }
}
