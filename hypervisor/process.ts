/** Processes as /proc tells of them: identity, end and signals that cannot hit another process. Linux only. */
import { readFile, readlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import koffi from 'koffi';
import { HypervisorError } from './errors.js';
import type { ProcessId, ProcessInspection } from './inspection.js';

const POLL_INTERVAL_MS = 10;
const WATCH_INTERVAL_MS = 500;

const syscall = koffi.load(null).func('long syscall(long number, int a, int b, void *c, int d)');
const closeFd = koffi.load(null).func('int close(int fd)');
/** The same number on every architecture (asm-generic/unistd.h and x86). */
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;

export const signalNumbers = { SIGKILL: 9, SIGTERM: 15 } as const;

/** When the process started, or null when there is none, or none but its unreaped remains. */
async function startTimeOf(pid: number): Promise<number | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  if (stat === null) return null;
  // The second field is the command's name in parentheses and may hold anything; the third is the state.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? null : Number(fields[19]);
}

/** The identity of a running process, or null when there is none of that pid. */
export async function processId(pid: number): Promise<ProcessId | null> {
  const startTime = await startTimeOf(pid);
  return startTime === null ? null : { pid, startTime };
}

export async function isRunning({ pid, startTime }: ProcessId): Promise<boolean> {
  return (await startTimeOf(pid)) === startTime;
}

/** Resolves with whether the process ended within `timeoutMs`. */
export async function waitForEnd(id: ProcessId, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (await isRunning(id)) {
    if (performance.now() >= deadline) return false;
    await delay(POLL_INTERVAL_MS, undefined, signal === undefined ? {} : { signal });
  }
  return true;
}

/** Resolves when this very process has ended, soon after. @throws when aborted */
export async function watchForEnd(id: ProcessId, signal: AbortSignal): Promise<void> {
  while (await isRunning(id)) await delay(WATCH_INTERVAL_MS, undefined, { signal, ref: false });
}

/** Sends a signal to this very process; does nothing when it has ended. */
export async function sendSignal(id: ProcessId, name: keyof typeof signalNumbers): Promise<void> {
  const fd = syscall(SYS_PIDFD_OPEN, id.pid, 0, null, 0) as number;
  if (fd < 0) return;
  try {
    // The descriptor pins the process: once its start time is right, the signal cannot reach a successor.
    if (!(await isRunning(id))) return;
    if ((syscall(SYS_PIDFD_SEND_SIGNAL, fd, signalNumbers[name], null, 0) as number) < 0) {
      throw new HypervisorError('VMMIG_PROCESS_END', `process ${id.pid} does not take ${name} from this user`);
    }
  } finally {
    closeFd(fd);
  }
}

/** @throws HypervisorError VMMIG_INSPECT when the process is not there or not ours to look at */
export async function inspectProcess(pid: number): Promise<ProcessInspection> {
  try {
    const [id, cmdline, cwd, executable, status] = await Promise.all([
      processId(pid),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
      readlink(`/proc/${pid}/cwd`),
      readlink(`/proc/${pid}/exe`),
      readFile(`/proc/${pid}/status`, 'utf8'),
    ]);
    if (id === null) throw new Error('it has ended');
    const argv = cmdline.split('\0').slice(0, -1);
    const owner = (field: string): number => Number(new RegExp(`^${field}:\\s+\\d+\\s+(\\d+)`, 'm').exec(status)?.[1]);
    return { ...id, argv, cwd, executable, uid: owner('Uid'), gid: owner('Gid') };
  } catch (cause) {
    const message = `cannot look at QEMU's process ${pid}: ${(cause as Error).message}`;
    throw new HypervisorError('VMMIG_INSPECT', message, { cause });
  }
}
