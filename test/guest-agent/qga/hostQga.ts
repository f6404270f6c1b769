/** Debian's qemu-guest-agent on this machine, with an agent for it that looks at nothing here. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { projectDirectory } from '../../../lab/assets.js';
import { qemuGaBinary } from './qemuGa.js';

/** A daemon behind a unix socket that serves one client at a time, as QEMU's chardev does. */
export class HostQga implements AsyncDisposable {
  readonly path: string;
  readonly #process: ChildProcess;

  private constructor(path: string, process: ChildProcess) {
    this.path = path;
    this.#process = process;
  }

  static async start(
    directory: string,
    { blocked = [], env = {} }: { blocked?: string[]; env?: Record<string, string> } = {},
  ): Promise<HostQga> {
    const path = join(directory, 'qga.sock');
    const args = ['-m', 'unix-listen', '-p', path, '-t', directory, '-f', join(directory, 'qga.pid')];
    if (blocked.length > 0) args.push(`--block-rpcs=${blocked.join(',')}`);
    const daemon = spawn(await qemuGaBinary(), args, { stdio: 'ignore', env: { ...process.env, ...env } });
    const qga = new HostQga(path, daemon);
    for (const deadline = Date.now() + 5_000; Date.now() < deadline; await sleep(20)) {
      const isThere = await access(path).then(
        () => true,
        () => false,
      );
      if (isThere) return qga;
    }
    await qga[Symbol.asyncDispose]();
    throw new Error('qemu-ga does not listen');
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** Stands still until it is let go on. */
  pause(): void {
    this.#process.kill('SIGSTOP');
  }

  goOn(): void {
    this.#process.kill('SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }
}

/** An agent that is all real but for what it tells: see syntheticScan.c. */
export async function buildSyntheticAgent(directory: string): Promise<string> {
  const sources = join(projectDirectory(), 'guest-agent/src');
  const path = join(directory, 'synthetic-agent');
  const command =
    'musl-gcc -std=c11 -O2 -Wall -Wextra -Werror -static -s -DAGENT_VERSION=\'"0.0.0"\' -I"$1" -o "$2" "$3" ' +
    '$(ls "$1"/*.c | grep -v /scan.c) -pthread';
  const own = join(projectDirectory(), 'test/guest-agent/qga/syntheticScan.c');
  await execa('sh', ['-c', command, 'sh', sources, path, own]);
  return path;
}
