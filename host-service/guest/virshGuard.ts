/**
 * Should this process die while libvirt waits for the destination's answer, that must not look like a no: virsh would let
 * the guest run here while it may run there. So a small shell shares virsh's connection, which stays open with it. When
 * its owner is gone without having said that all is well, it ends virsh if the guest was being held, which leaves the
 * guest paused, and otherwise lets go, which makes libvirt take everything back.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { processId } from '../../hypervisor/index.js';

/** `$1` is there while the guest is held; `$2` is virsh's pid and `$3` its start time (a field of /proc/PID/stat). */
const guard = `
  read -r word
  [ "$word" = done ] && exit
  [ -e "$1" ] || exit
  read -r stat < "/proc/$2/stat" || exit
  case "$stat" in *") "*" $3 "*) kill -KILL "$2" ;; esac`;

/** Disposing of it says that all is well. */
export class VirshGuard implements Disposable {
  readonly #shell: ChildProcess;

  private constructor(shell: ChildProcess) {
    this.#shell = shell;
  }

  /** @returns null when virsh has ended */
  static async start(heldPath: string, virshPid: number, connection: Socket): Promise<VirshGuard | null> {
    const virsh = await processId(virshPid);
    const { _handle: handle } = connection as unknown as { readonly _handle: { readonly fd: number } | null };
    if (virsh === null || handle === null) return null;
    const args = ['-c', guard, 'vmmig-guard', heldPath, String(virsh.pid), String(virsh.startTime)];
    const stdio = ['pipe', 'ignore', 'ignore', handle.fd] as const;
    // In a session of its own: what ends its owner must not end it.
    const shell = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: [...stdio] });
    shell.on('error', () => {});
    shell.stdin!.on('error', () => {});
    shell.unref();
    return new VirshGuard(shell);
  }

  [Symbol.dispose](): void {
    this.#shell.stdin?.end('done\n');
  }
}
