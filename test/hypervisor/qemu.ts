/** Real QEMUs for these tests: machines with firmware and no disk to boot from, each in a directory of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ProcessId } from '../../hypervisor/index.js';
import { processId } from '../../hypervisor/process.js';
import { type QemuVersion, qemuBinary } from '../../lab/qemu.js';
import { QmpClient } from '../../qmp/index.js';

export const versions: readonly QemuVersion[] = ['7.2', '10.0'];

/** A machine that needs nothing and starts quickly. */
export const tinyMachine = ['-machine', 'q35', '-accel', 'tcg', '-m', '64', '-display', 'none', '-nodefaults'];

export async function binaryOf(version: QemuVersion): Promise<string> {
  return (await qemuBinary(version)).command;
}

/** A directory for sockets and images. */
export class Workshop implements AsyncDisposable {
  readonly #children: ChildProcess[] = [];

  private constructor(readonly path: string) {}

  static async open(): Promise<Workshop> {
    return new Workshop(await mkdtemp(join(tmpdir(), 'vmmig-hv-')));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Starts a QEMU with a monitor at `NAME.qmp`. */
  async start(version: QemuVersion, name: string, args: readonly string[] = tinyMachine): Promise<Guest> {
    const qmpPath = this.file(`${name}.qmp`);
    const argv = [await binaryOf(version), ...args, '-qmp', `unix:${qmpPath},server=on,wait=off`];
    const child = spawn(argv[0]!, argv.slice(1), { cwd: this.path, stdio: ['ignore', 'ignore', 'inherit'] });
    this.#children.push(child);
    await once(child, 'spawn');
    const qmp = await QmpClient.connect({ path: qmpPath }, { retry: true });
    return { qmp, qmpPath, argv, process: (await processId(child.pid!))!, cwd: this.path };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    await rm(this.path, { recursive: true, force: true });
  }
}

export interface Guest {
  readonly qmp: QmpClient;
  readonly qmpPath: string;
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly process: ProcessId;
}

/** Waits for something that another process is about to do. */
export async function eventually(isSo: () => Promise<boolean>, timeoutMs = 5_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not so after ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
