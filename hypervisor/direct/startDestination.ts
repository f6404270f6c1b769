/**
 * Starts the destination's QEMU as a process of its own session, with a guard: a shell that kills QEMU when this process
 * ends, by whatever means, without having released it. So a service that is killed before the commit point leaves no
 * QEMU behind, and one that is killed after it does not take the guest along.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { openTransport, QmpClient } from '../../qmp/index.js';
import type { DestinationGuest } from '../destination.js';
import { HypervisorError } from '../errors.js';
import type { ProcessId } from '../inspection.js';
import { listenerPid } from '../monitorProcess.js';
import { processId } from '../process.js';
import { endProcess } from '../source.js';
import { RecoveryGuard, type RecoveryPaths } from './recoveryGuard.js';

const DEFAULT_TIMEOUT_MS = 10_000;
const KILL_STEP_TIMEOUT_MS = 2_000;
const LOG_TAIL_BYTES = 4096;
/** Waits for its owner's word or end. `$1` is the pid, `$2` the start time (a field of /proc/PID/stat), `$3` the pid file. */
const GUARD = `
  read -r word
  [ "$word" = release ] && exit
  read -r stat < "/proc/$1/stat"
  case "$stat" in *") "*" $2 "*) kill -KILL "$1" ;; esac
  rm -f "$3"`;

export interface StartDestinationOptions {
  /** As `deriveCommandLine` gives it. */
  readonly argv: readonly string[];
  /** Working directory; `/` is used where it does not exist. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** QEMU's stdout and stderr are appended to this file. */
  readonly logPath: string;
  /** Where `PID STARTTIME` is kept while the process is not released, for who has to clean up later. */
  readonly pidPath: string;
  /** The monitor that `argv` opens. */
  readonly qmpPath: string;
  /** Until the monitor answers. Default 10 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when the monitor answers.
 * @throws HypervisorError VMMIG_DESTINATION_START with the end of the log; nothing is left behind then
 */
export async function startDestination(options: StartDestinationOptions): Promise<DestinationGuest> {
  const { logPath, pidPath, qmpPath, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  signal?.throwIfAborted();
  if (listenerPid(qmpPath) !== null) {
    throw new HypervisorError('VMMIG_DESTINATION_START', `another process listens on ${qmpPath} already`);
  }
  const child = await spawnDetached(options);
  const ended = once(child, 'exit');
  const pid = child.pid!;
  const gone = new AbortController();
  ended.then(
    () => gone.abort(),
    () => undefined,
  );
  let id: ProcessId | null = null;
  let guard: ChildProcess | undefined;
  try {
    id = await processId(pid);
    if (id === null) throw new Error('it ended at once');
    guard = startGuard(id, pidPath);
    await writeFile(pidPath, `${id.pid} ${id.startTime}\n`, { mode: 0o600 });
    const signals = signal === undefined ? [gone.signal] : [gone.signal, signal];
    const limits = AbortSignal.any([...signals, AbortSignal.timeout(timeoutMs)]);
    const monitor = await openTransport({ path: qmpPath }, true, limits);
    const qmp = await QmpClient.connect({ stream: monitor }, { timeoutMs, signal: limits });
    return new DirectDestination(id, { qmp, monitor, guard }, options);
  } catch (cause) {
    if (id !== null) await endProcess(id, { stepTimeoutMs: KILL_STEP_TIMEOUT_MS });
    if (guard !== undefined) dismiss(guard);
    await rm(pidPath, { force: true });
    signal?.throwIfAborted();
    const [code, killedBy] = gone.signal.aborted ? ((await ended) as [number | null, string | null]) : [];
    const how = gone.signal.aborted ? `QEMU ended (${killedBy ?? code})` : (cause as Error).message;
    const message = `the destination's QEMU did not start: ${how}\n${await tail(logPath)}`.trimEnd();
    throw new HypervisorError('VMMIG_DESTINATION_START', message, { cause });
  }
}

async function spawnDetached({ argv, cwd, env, logPath }: StartDestinationOptions): Promise<ChildProcess> {
  const [command, ...args] = argv;
  const directory = cwd !== undefined && (await stat(cwd).catch(() => null))?.isDirectory() ? cwd : '/';
  const log = await open(logPath, 'a', 0o600);
  try {
    const stdio = ['ignore', log.fd, log.fd] as const;
    const child = spawn(command!, args, { cwd: directory, env: env ?? process.env, detached: true, stdio: [...stdio] });
    await once(child, 'spawn');
    child.unref();
    return child;
  } catch (cause) {
    const message = `cannot start ${command}: ${(cause as Error).message}`;
    throw new HypervisorError('VMMIG_DESTINATION_START', message, { cause });
  } finally {
    await log.close();
  }
}

/** In a session of its own too: what interrupts this process from a terminal must not end its guard. */
function startGuard({ pid, startTime }: ProcessId, pidPath: string): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', GUARD, 'vmmig-guard', String(pid), String(startTime), pidPath], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.on('error', () => undefined);
  guard.stdin!.on('error', () => undefined);
  guard.unref();
  return guard;
}

function dismiss(guard: ChildProcess): void {
  guard.stdin?.end('release\n');
}

async function tail(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.slice(-LOG_TAIL_BYTES).trim();
}

interface Watched {
  readonly qmp: QmpClient;
  /** What `qmp` speaks over. */
  readonly monitor: Duplex;
  readonly guard: ChildProcess;
}

class DirectDestination implements DestinationGuest {
  readonly pid: number;
  readonly startTime: number;
  readonly #options: StartDestinationOptions;
  readonly qmp: QmpClient;
  readonly #monitor: Duplex;
  readonly #guard: ChildProcess;
  #recoveryGuard: RecoveryGuard | null = null;
  #released = false;

  constructor({ pid, startTime }: ProcessId, { qmp, monitor, guard }: Watched, options: StartDestinationOptions) {
    this.pid = pid;
    this.startTime = startTime;
    this.qmp = qmp;
    this.#monitor = monitor;
    this.#guard = guard;
    this.#options = options;
  }

  guardRecovery(paths: RecoveryPaths): RecoveryGuard {
    this.#recoveryGuard = new RecoveryGuard(this, this.#monitor, paths);
    return this.#recoveryGuard;
  }

  release(): void {
    this.#released = true;
    // Who cleans up later must not take it for a leftover.
    rmSync(this.#options.pidPath, { force: true });
    dismiss(this.#guard);
  }

  async kill(): Promise<void> {
    if (this.#released) return;
    this.#recoveryGuard?.[Symbol.dispose]();
    await this.qmp.close();
    await endProcess(this, { stepTimeoutMs: KILL_STEP_TIMEOUT_MS });
    dismiss(this.#guard);
    await rm(this.#options.pidPath, { force: true });
  }

  logTail(): Promise<string> {
    return tail(this.#options.logPath);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) await this.qmp.close();
    else await this.kill();
  }
}
