/** Disk images made by QEMU's own tools, in a directory that goes with the test. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

export const KiB = 1024;
export const MiB = 1024 * KiB;

export class Images implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  static async open(): Promise<Images> {
    return new Images(await mkdtemp(join(tmpdir(), 'vmmig-images-')));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** `qemu-img` in the images' directory. */
  async img(...args: string[]): Promise<string> {
    return (await execa('qemu-img', args, { cwd: this.folder })).stdout;
  }

  /** A sparse raw image with random bytes at some places. */
  async raw(name: string, sizeBytes: number, filled: readonly (readonly [offset: number, lengthBytes: number])[]) {
    await using file = await open(this.path(name), 'w');
    await file.truncate(sizeBytes);
    for (const [offset, lengthBytes] of filled) await file.write(randomBytes(lengthBytes), 0, lengthBytes, offset);
    return this.path(name);
  }

  /** Runs `qemu-io` commands on an image. */
  async io(name: string, ...commands: string[]): Promise<void> {
    await execa('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), this.path(name)]);
  }

  /** What a guest would read of the whole disk, as qemu-img sees it. */
  async content(name: string, format: string, ...options: string[]): Promise<Buffer> {
    const out = `${name}.content`;
    await this.img('convert', '-f', format, '-O', 'raw', ...options, name, out);
    return await readFile(this.path(out));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A QEMU tool that has an image open for writing, as a guest's QEMU has, and does what it is told. */
export class Writer implements AsyncDisposable {
  readonly #process;
  #output = '';

  constructor(path: string) {
    this.#process = spawn('qemu-io', ['-f', 'qcow2', path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
    });
  }

  /** Resolves when the command has been carried out. */
  async run(command: string): Promise<void> {
    const before = this.#prompts();
    this.#process.stdin.write(`${command}\n`);
    while (this.#prompts() <= Math.max(before, 1)) await once(this.#process.stdout, 'data');
  }

  #prompts(): number {
    return this.#output.split('qemu-io> ').length - 1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exited;
  }
}

/** The qemu-nbd processes that a process has started. */
export async function qemuNbdsOf(pid: number): Promise<number[]> {
  const entries = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  const stats = await Promise.all(entries.map((entry) => readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '')));
  const children = stats.map((stat) => /^(\d+) \(qemu-nbd\) [^ZX] (\d+) /.exec(stat));
  return children.filter((child) => Number(child?.[2]) === pid).map((child) => Number(child![1]));
}

/** Whether a process is there and not just waiting to be buried. */
export async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return stat !== '' && !/\) [ZX] /.test(stat);
}
