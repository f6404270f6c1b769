/** Debian's qemu-guest-agent on this machine, with an agent for it that looks at nothing here. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { execa } from 'execa';
import { projectDirectory } from '../../../lab/assets.js';
import { openTransport } from '../../../qmp/transport.js';
import { qemuGaBinary } from './qemuGa.js';

/**
 * A daemon behind a unix socket that behaves as QEMU's chardev does: it serves one client at a time and leaves others
 * waiting, and what the daemon says to one that has left, the next one gets.
 */
export class HostQga implements AsyncDisposable {
  readonly path: string;
  readonly #process: ChildProcess;
  readonly #daemon: Duplex;
  readonly #server: Server;
  readonly #clients: Socket[] = [];

  private constructor(path: string, process: ChildProcess, daemon: Duplex) {
    this.path = path;
    this.#process = process;
    this.#daemon = daemon;
    this.#server = createServer({ pauseOnConnect: true }, (client) => this.#queue(client));
    daemon.on('error', () => {});
    daemon.on('data', (bytes: Buffer) => this.#clients[0]?.write(bytes));
  }

  static async start(
    directory: string,
    { blocked = [], env = {} }: { blocked?: string[]; env?: Record<string, string> } = {},
  ): Promise<HostQga> {
    const own = join(directory, 'qga.daemon');
    const args = ['-m', 'unix-listen', '-p', own, '-t', directory, '-f', join(directory, 'qga.pid')];
    if (blocked.length > 0) args.push(`--block-rpcs=${blocked.join(',')}`);
    const process = spawn(await qemuGaBinary(), args, { stdio: 'ignore', env: { ...globalThis.process.env, ...env } });
    const daemon = await openTransport({ path: own }, true, AbortSignal.timeout(5_000)).catch((error) => {
      process.kill('SIGKILL');
      throw error;
    });
    const qga = new HostQga(join(directory, 'qga.sock'), process, daemon);
    qga.#server.listen(qga.path);
    await once(qga.#server, 'listening');
    return qga;
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

  #queue(client: Socket): void {
    client.on('error', () => {});
    client.on('data', (bytes: Buffer) => this.#daemon.write(bytes));
    client.pause();
    client.on('close', () => {
      this.#clients.splice(this.#clients.indexOf(client), 1);
      this.#clients[0]?.resume();
    });
    this.#clients.push(client);
    this.#clients[0]!.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const client of this.#clients) client.destroy();
    this.#daemon.destroy();
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
