/**
 * The lab's sets of namespaces: finding, starting and ending them, and running commands in them. They are found by their
 * first process's command line, never by remembered process ids, so that nothing escapes a crash.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa, type Options, type ResultPromise } from 'execa';
import { LabError } from '../errors.js';
import { guestDirectory, type HostName, hostNames, labDirectory, labPaths, type MemberName } from '../settings.js';

/** Process ids of the first processes of the lab's members, as this process sees them. */
export function findMembers(): { name: string; pid: number }[] {
  const members: { name: string; pid: number }[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const [program, verb, directory, name] = readFileSync(`/proc/${entry}/cmdline`, 'latin1').split('\0');
      if (program?.endsWith('/lab-host') && verb === 'start' && directory === labDirectory() && name) {
        members.push({ name, pid: Number(entry) });
      }
    } catch {
      // The process ended meanwhile.
    }
  }
  return members;
}

/** The first process of a member. `VMMIG_LAB_DOWN` when the lab is not up. */
export function memberPid(name: MemberName): number {
  const member = findMembers().find((each) => each.name === name);
  if (!member) throw new LabError('VMMIG_LAB_DOWN', `The lab's ${name} is not running: run "vmmig lab up"`);
  return member.pid;
}

export async function startMember(name: MemberName, signal?: AbortSignal): Promise<void> {
  await execa(labPaths.labHost(), ['start', labDirectory(), name], { stdin: 'ignore', ...cancel(signal) });
}

/** Kills every process of every member and waits until the last of them has ended. */
export async function killMembers(): Promise<void> {
  const pids = findMembers().map((member) => member.pid);
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended meanwhile.
    }
  }
  // A first process ends after all others of its namespace.
  for (const deadline = Date.now() + 20_000; pids.some(isRunning); await sleep(20)) {
    if (Date.now() > deadline) {
      throw new LabError('VMMIG_LAB_TIMEOUT', `Processes of the lab do not end after SIGKILL: ${pids.join(', ')}`);
    }
  }
}

function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/**
 * Runs a command in a host (or in the network between them), with the environment its SSH sessions have. Signals sent to
 * the returned process reach the command; when it is killed, the command is killed. Throws `VMMIG_LAB_DOWN` at once.
 */
export function labExec<T extends Options = Record<never, never>>(
  member: MemberName,
  argv: [string, ...string[]],
  options?: T,
): ResultPromise<T> {
  return execa(labPaths.labHost(), ['exec', String(memberPid(member)), ...argv], {
    stdin: 'ignore',
    cwd: '/',
    ...options,
    extendEnv: false,
    env: { ...ofTerminal(), ...hostEnvironment(member), ...options?.env },
  }) as unknown as ResultPromise<T>;
}

/** Of this machine's environment a host gets what is about the terminal; the rest is none of its business. */
function ofTerminal(): NodeJS.ProcessEnv {
  const { TERM, COLORTERM, NO_COLOR, LANG } = process.env;
  return { TERM, COLORTERM, NO_COLOR, LANG };
}

/** What is particular to a host: a home of its own, and `vmmig` on the path. */
export function hostEnvironment(member: MemberName): Record<string, string> {
  const isHost = hostNames.includes(member as HostName);
  const home = join(labPaths.hostDirectory(member as HostName), 'home');
  return {
    PATH: `${labPaths.bin()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    VMMIG_LAB_DIR: labDirectory(),
    ...(process.env.VMMIG_CACHE_DIR ? { VMMIG_CACHE_DIR: process.env.VMMIG_CACHE_DIR } : {}),
    ...(isHost
      ? { HOME: home, XDG_CONFIG_HOME: join(home, '.config'), XDG_STATE_HOME: join(home, '.local/state') }
      : {}),
  };
}

/** A path inside a member as seen from outside: files and sockets of its private directories. */
export function pathInMember(member: MemberName, path: string): string {
  return `/proc/${memberPid(member)}/root${path}`;
}

/** The process id, as this process sees it, of a process that knows itself as `insidePid` in a member. */
export function pidFromOutside(member: MemberName, insidePid: number): number {
  const namespace = readlinkSync(`/proc/${memberPid(member)}/ns/pid`);
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if (readlinkSync(`/proc/${entry}/ns/pid`) !== namespace) continue;
      const ids = /^NSpid:(.*)$/m
        .exec(readFileSync(`/proc/${entry}/status`, 'latin1'))![1]!
        .trim()
        .split(/\s+/);
      if (Number(ids.at(-1)) === insidePid) return Number(entry);
    } catch {
      // The process ended meanwhile.
    }
  }
  throw new LabError('VMMIG_LAB_GUEST', `No process ${insidePid} in ${member}`);
}

/** Where a guest's socket or file in a host is, seen from outside. */
export function guestPathInHost(host: HostName, file: string): string {
  return pathInMember(host, join(guestDirectory, file));
}

export function cancel(signal: AbortSignal | undefined): { cancelSignal?: AbortSignal } {
  return signal ? { cancelSignal: signal } : {};
}
