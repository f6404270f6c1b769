/**
 * The destination's daemon ends a guest that it has not got all of when the connection closes over which it was asked to
 * take it. So that connection has to outlive the service, as the guest does. A small shell shares it. It is also what
 * passes the word to run the guest on, once: when its owner says so, or has died after it had been decided. From its
 * owner's death on it gives the daemon signs of life, for as long as the migration goes on there.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { type DomainAddress, pong } from '../../hypervisor/index.js';

/** `$1` has the decision, `$2` the word, `$3` and `$4` the daemon's URI and the domain; `$5` is a sign of life, for printf. */
const keeper = `
  read -r word
  [ "$word" = done ] && exit
  if [ "$word" != run ]; then
    read -r decision 2>/dev/null < "$1" && [ "$decision" = run ] || exit
  fi
  cat "$2" >&3
  [ "$word" = run ] && read -r word && [ "$word" = done ] && exit
  while printf "$5" >&3 && virsh --quiet --connect "$3" domstate --reason "$4" 2>/dev/null | grep -qE 'migrating|post-copy'; do
    sleep 5
  done`;

export interface KeeperPaths {
  /** Of the destination's decision. */
  readonly decision: string;
  /** What libvirt is told so that it lets the guest run. */
  readonly word: string;
}

/** Disposing of it says that the connection is not needed any more, or ends it with this process's own. */
export class DaemonKeeper implements Disposable {
  readonly #shell: ChildProcess;

  constructor(daemon: Socket, { decision, word }: KeeperPaths, { uri, domain }: DomainAddress) {
    const { _handle: handle } = daemon as unknown as { readonly _handle: { readonly fd: number } };
    const signOfLife = [...pong()].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
    const args = ['-c', keeper, 'vmmig-keeper', decision, word, uri, domain, signOfLife];
    // In a session of its own: what ends its owner must not end it.
    const stdio = ['pipe', 'ignore', 'ignore', handle.fd] as const;
    this.#shell = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: [...stdio] });
    this.#shell.on('error', () => {});
    this.#shell.stdin!.on('error', () => {});
    this.#shell.unref();
  }

  /** Passes the word on. It has been decided. */
  run(): void {
    this.#shell.stdin?.write('run\n');
  }

  [Symbol.dispose](): void {
    this.#shell.stdin?.end('done\n');
  }
}
