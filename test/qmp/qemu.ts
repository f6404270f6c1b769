/** Real QEMUs for the QMP tests: both versions, started without a guest, with a monitor on each kind of transport. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { type QemuVersion, qemuBinary } from '../../lab/qemu.js';

export const QEMU_VERSIONS: readonly QemuVersion[] = ['7.2', '10.0'];

export class TestQemu implements AsyncDisposable {
  private constructor(
    readonly directory: string,
    /** Address of the monitor on a unix socket. */
    readonly path: string,
    /** Port of the monitor on TCP, at 127.0.0.1. */
    readonly port: number,
    readonly process: ChildProcess,
  ) {}

  /** Starts a QEMU with monitors on a unix socket, on TCP and on its standard input and output. Does not wait for it. */
  static async start(version: QemuVersion, args: readonly string[] = ['-machine', 'none']): Promise<TestQemu> {
    const { command, args: leading, env } = await qemuBinary(version);
    const directory = await mkdtemp(join(tmpdir(), 'vmmig-qmp-'));
    const path = join(directory, 'qmp.sock');
    const port = await freePort();
    const monitors = [
      ...['-chardev', `socket,id=unix,path=${path},server=on,wait=off`, '-mon', 'chardev=unix,mode=control'],
      ...['-qmp', `tcp:127.0.0.1:${port},server=on,wait=off`, '-qmp', 'stdio'],
    ];
    const fixed = ['-accel', 'tcg', '-display', 'none', '-nodefaults', '-S'];
    const child = spawn(command, [...leading, ...args, ...fixed, ...monitors], {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.on('error', () => undefined);
    return new TestQemu(directory, path, port, child);
  }

  /** The monitor on standard input and output, as an open stream. */
  stdio(): Duplex {
    const { stdin, stdout } = this.process;
    return Duplex.from({ readable: stdout!, writable: stdin! });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const exited = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await exited;
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
