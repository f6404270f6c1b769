/**
 * Should this process die while libvirt waits for the destination's answer, that must not look like a no: virsh would let
 * the guest run here while it may run there. So a small shell shares virsh's connection, which stays open with it. When
 * its owner is gone without having said that all is well, it ends virsh if the guest was being held, which leaves the
 * guest paused, and otherwise lets go, which makes libvirt take everything back. In the end it sees to it that QEMU leaves
 * nothing out of whatever is saved or moved next.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { type DomainAddress, processId } from '../../hypervisor/index.js';
import type { ArgumentsOf } from '../../qmp/index.js';

/** That QEMU leaves out of its stream what of the guest's memory is in shared files. It is told while it sends none. */
export function leavingOut(state: boolean): ArgumentsOf<'migrate-set-capabilities'> {
  return { capabilities: [{ capability: 'x-ignore-shared', state }] };
}

/**
 * `$1` is there while the guest is held; `$2` is virsh's pid and `$3` its start time (a field of /proc/PID/stat); `$4` is
 * libvirt's URI, `$5` the domain and `$6` what its QEMU is told in the end, if anything. The connection is descriptor 3.
 */
const guard = `
  read -r word
  [ "$word" = done ] && exit
  if [ -e "$1" ]; then
    read -r stat < "/proc/$2/stat" && case "$stat" in *") "*" $3 "*) kill -KILL "$2" ;; esac
  fi
  exec 3>&-
  [ -n "$6" ] || exit
  tries=0
  while [ "$tries" -lt 100 ]; do
    said=$(virsh --quiet --connect "$4" qemu-monitor-command --domain "$5" "$6" 2>&1)
    case "$said" in *'"return"'* | *'not running'* | *'failed to get domain'*) exit ;; esac
    tries=$((tries + 1))
    sleep 0.3
  done`;

export interface Guarded {
  readonly heldPath: string;
  readonly address: DomainAddress;
  /** QEMU leaves the guest's memory out of its stream. */
  readonly isInFiles: boolean;
}

/** Disposing of it says that all is well. */
export class VirshGuard implements Disposable {
  readonly #shell: ChildProcess;

  private constructor(shell: ChildProcess) {
    this.#shell = shell;
  }

  /** @returns null when virsh has ended */
  static async start(
    { heldPath, address, isInFiles }: Guarded,
    virshPid: number,
    connection: Socket,
  ): Promise<VirshGuard | null> {
    const virsh = await processId(virshPid);
    const { _handle: handle } = connection as unknown as { readonly _handle: { readonly fd: number } | null };
    if (virsh === null || handle === null) return null;
    const command = JSON.stringify({ execute: 'migrate-set-capabilities', arguments: leavingOut(false) });
    const whom = [heldPath, String(virsh.pid), String(virsh.startTime)];
    const args = ['-c', guard, 'vmmig-guard', ...whom, address.uri, address.domain, isInFiles ? command : ''];
    const stdio = ['pipe', 'ignore', 'ignore', handle.fd] as const;
    // In a session of its own: what ends its owner must not end it.
    const shell = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: [...stdio] });
    shell.on('error', () => {});
    shell.stdin!.on('error', () => {});
    shell.unref();
    return new VirshGuard(shell);
  }

  /** All is not well: what its owner could not do it does. */
  alarm(): void {
    this.#shell.stdin?.end();
  }

  [Symbol.dispose](): void {
    this.#shell.stdin?.end('done\n');
  }
}
