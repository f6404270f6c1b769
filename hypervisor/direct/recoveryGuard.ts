/**
 * Makes a guest that has run before all of its memory was there survive the process that brings it. When that dies, QEMU
 * pauses what touches missing memory and can be told to listen for another stream, but its main loop may be among what
 * waits: it accepts no new monitor then. So a small shell shares the monitor's connection, and once its owner is gone
 * without having said that all is well, it tells QEMU, out of band, to listen.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import type { ProcessId } from '../inspection.js';

export interface RecoveryPaths {
  /** Nothing is done unless this file is there: without it the guest has not run here. */
  readonly decisionPath: string;
  /** Where QEMU is to listen. */
  readonly socketPath: string;
}

/**
 * Waits for its owner's word or end. `$1` is the pid, `$2` the start time (a field of /proc/PID/stat), `$3` and `$4` the
 * paths. QEMU refuses until it has noticed that its stream broke; when it has obeyed, the socket is there. It holds the
 * monitor no longer than that: a monitor serves one client.
 */
const GUARD = `
  read -r word
  [ "$word" = done ] && exit
  [ -e "$3" ] || exit
  rm -f "$4"
  while [ ! -S "$4" ]; do
    read -r stat < "/proc/$1/stat" || exit
    case "$stat" in *") "*" $2 "*) ;; *) exit ;; esac
    printf '{"exec-oob":"migrate-recover","arguments":{"uri":"unix:%s"},"id":"vmmig-guard"}\\n' "$4" >&3 || exit
    sleep 0.2
  done`;

/** Disposing of it says that all is well. Without that, the end of this process is the alarm. */
export class RecoveryGuard implements Disposable {
  readonly #shell: ChildProcess;

  /** @param monitor - a connected and negotiated monitor's, which allows commands out of band */
  constructor({ pid, startTime }: ProcessId, monitor: Duplex, { decisionPath, socketPath }: RecoveryPaths) {
    const { _handle: handle } = monitor as unknown as { readonly _handle: { readonly fd: number } };
    const args = ['-c', GUARD, 'vmmig-guard', String(pid), String(startTime), decisionPath, socketPath];
    // In a session of its own: what ends its owner must not end it.
    const stdio = ['pipe', 'ignore', 'ignore', handle.fd] as const;
    this.#shell = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: [...stdio] });
    this.#shell.on('error', () => undefined);
    this.#shell.stdin!.on('error', () => undefined);
    this.#shell.unref();
  }

  /** The stream is broken for good, and this process holds the monitor no longer. */
  alarm(): void {
    this.#shell.stdin?.end();
  }

  [Symbol.dispose](): void {
    this.#shell.stdin?.end('done\n');
  }
}
