/**
 * Whether QEMU may use `userfaultfd` here, without which a guest cannot run before its memory is there. The kernel wants
 * CAP_SYS_PTRACE, or `vm.unprivileged_userfaultfd=1` (since Linux 5.2; before that anybody may); QEMU opens
 * /dev/userfaultfd first since 8.1, and then who may open that may (fs/userfaultfd.c; QEMU, util/userfaultfd.c).
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { promisify } from 'node:util';
import type { Finding } from '../../finding.js';
import { lastValue, parseArgument, parseOptions } from '../commandLine/options.js';
import type { DestinationPlan } from './plan.js';

/** What this host and its kernel allow. */
export interface UserfaultfdFacts {
  /** Of /proc/sys/vm/unprivileged_userfaultfd; null where there is no such file. */
  readonly unprivileged: boolean | null;
  /** [major, minor] of the kernel. */
  readonly kernel: readonly [number, number];
  /** Whether this process has CAP_SYS_PTRACE. */
  readonly isPrivileged: boolean;
  /** Whether this process can open /dev/userfaultfd. */
  readonly hasDevice: boolean;
}

const sysPtrace = 19n;
const timeoutMs = 10_000;
const run = promisify(execFile);

/** What of a QEMU decides whether it may. */
export interface UserfaultfdUser {
  readonly binary: string;
  /** Whom it becomes; null when it stays who started it. */
  readonly user: string | null;
}

export async function checkUserfaultfd(
  { postcopy, commandLine: { argv } }: DestinationPlan,
  facts?: UserfaultfdFacts,
): Promise<Finding[]> {
  if (postcopy !== true) return [];
  return await checkUserfaultfdOf({ binary: argv[0] ?? '', user: userOf(argv) }, facts);
}

/** Likewise of a QEMU that another program starts as it likes; this process is as privileged as that. */
export async function checkUserfaultfdOf(
  { binary, user }: UserfaultfdUser,
  facts?: UserfaultfdFacts,
): Promise<Finding[]> {
  const { unprivileged, kernel, isPrivileged, hasDevice } = facts ?? (await userfaultfdFacts());
  if (unprivileged === null) {
    const [major, minor] = kernel;
    if (major < 5 || (major === 5 && minor < 2)) return [];
    return [refuse("this host's kernel has no userfaultfd", 'use a kernel with CONFIG_USERFAULTFD, or vmmig teleport')];
  }
  const becomesOther = user !== null && user !== 'root' && user !== '0';
  if (unprivileged || (isPrivileged && !becomesOther)) return [];
  if (hasDevice && !becomesOther && (await opensDevice(binary))) return [];
  const who = becomesOther ? `QEMU runs as ${user}, who` : 'QEMU would run as a user who';
  return [
    refuse(
      `${who} may not use userfaultfd here`,
      'set vm.unprivileged_userfaultfd=1 on this host, run vmmig there as root, or, from QEMU 8.1 on, give access to /dev/userfaultfd',
    ),
  ];
}

async function userfaultfdFacts(): Promise<UserfaultfdFacts> {
  const text = async (path: string) => await readFile(path, 'utf8').catch(() => null);
  const [sysctl, status, hasDevice] = await Promise.all([
    text('/proc/sys/vm/unprivileged_userfaultfd'),
    text('/proc/self/status'),
    access('/dev/userfaultfd', constants.R_OK | constants.W_OK).then(
      () => true,
      () => false,
    ),
  ]);
  const capabilities = BigInt(`0x${/^CapEff:\s+([\da-f]+)$/m.exec(status ?? '')?.[1] ?? '0'}`);
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return {
    unprivileged: sysctl === null ? null : sysctl.trim() === '1',
    kernel: [major, minor],
    isPrivileged: ((capabilities >> sysPtrace) & 1n) === 1n,
    hasDevice,
  };
}

/** Whom QEMU becomes once it has started; null when it stays who started it. */
function userOf(argv: readonly string[]): string | null {
  let user: string | null = null;
  for (const { name, argument } of parseOptions(argv.slice(1))) {
    if (name === 'runas') user = argument;
    else if (name === 'run-with') user = lastValue(parseArgument(argument ?? ''), 'user') ?? user;
  }
  return user;
}

async function opensDevice(binary: string): Promise<boolean> {
  try {
    const { stdout } = await run(binary, ['-version'], { timeout: timeoutMs });
    const [, major, minor] = /version (\d+)\.(\d+)/.exec(stdout) ?? [];
    return Number(major) > 8 || (Number(major) === 8 && Number(minor) >= 1);
  } catch {
    // That it does not run is another finding.
    return false;
  }
}

function refuse(message: string, remedy: string): Finding {
  return { severity: 'refuse', code: 'VMMIG_USERFAULTFD', message, remedy };
}
