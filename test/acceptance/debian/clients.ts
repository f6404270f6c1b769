/** Clients of the debian guest, outside of both hosts: they work while it moves, and tell what they saw. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { cached } from '../../../lab/cache.js';
import { labExec } from '../../../lab/index.js';
import { PackageSource } from '../../../lab/packages.js';

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Reads a process's lines. Resolves once it has said the first, which is that it has begun. */
async function begun(output: Readable, onLine: (line: string) => void = () => {}): Promise<void> {
  const lines = createInterface({ input: output });
  await new Promise<void>((resolve, reject) => {
    lines.once('line', () => resolve());
    lines.once('close', () => reject(new Error('A client ended before it had begun')));
  });
  lines.on('line', onLine);
}

export interface WebVerdict {
  readonly files: number;
  readonly rounds: number;
  readonly faults: readonly string[];
  readonly connections: number;
  /** Connections that nginx announced to close: each serves a thousand requests. */
  readonly announced: number;
  readonly longestMs: number;
}

/** Fetches and compares what nginx serves, over one connection, until it is stopped. */
export class WebClient implements AsyncDisposable {
  readonly #process;

  private constructor(address: string) {
    const argv = [process.execPath, here('webClient.mjs'), address] as const;
    this.#process = labExec('wan', [...argv], { stdin: 'pipe', buffer: { stderr: false }, reject: false });
  }

  static async start(address: string): Promise<WebClient> {
    const client = new WebClient(address);
    await begun(client.#process.stderr);
    return client;
  }

  async stop(): Promise<WebVerdict> {
    this.#process.stdin.end();
    const { stdout } = await this.#process;
    return JSON.parse(stdout) as WebVerdict;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process;
  }
}

/** pgbench is part of the server's package, which is not installed for it, but unpacked beside the system. */
async function pgbenchBinary(): Promise<string> {
  const directory = await cached('pgbench', async (into) => {
    const apt = join(into, 'apt');
    const source = await PackageSource.open(apt, { backports: false });
    await source.unpack(['postgresql-15'], into);
    await rm(apt, { recursive: true });
  });
  return join(directory, 'usr/lib/postgresql/15/bin/pgbench');
}

/** Serial numbers of the last acknowledged transaction, by client; those before it were acknowledged, too. */
export type Acknowledged = ReadonlyMap<number, number>;

/** Clients of PostgreSQL, each on one connection. Their log says which transactions were acknowledged. */
export class Pgbench implements AsyncDisposable {
  static readonly clients = 4;
  readonly #process;

  private constructor(
    binary: string,
    address: string,
    private readonly directory: string,
  ) {
    const argv = [binary, '--no-vacuum', '--log', `--log-prefix=${join(directory, 'log')}`];
    argv.push('-h', address, '-U', 'lab', '-c', String(Pgbench.clients), '-T', '3600', '-s', '5', '-D', 'serial=0');
    argv.push('-f', here('transaction.sql'), 'lab');
    this.#process = labExec('wan', argv as [string, ...string[]], { reject: false });
  }

  static async start(address: string): Promise<Pgbench> {
    const binary = await pgbenchBinary();
    return new Pgbench(binary, address, await mkdtemp(join(tmpdir(), 'vmmig-pgbench-')));
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null;
  }

  /** Waits until the server has ended the connections. @returns what was acknowledged until then, and what pgbench said */
  async ended(): Promise<{ acknowledged: Acknowledged; said: string }> {
    const { stderr } = await this.#process;
    const acknowledged = new Map<number, number>();
    for (const name of await readdir(this.directory)) {
      const log = await readFile(join(this.directory, name), 'utf8');
      for (const line of log.split('\n').filter(Boolean)) {
        const [client, serial] = line.split(' ').map(Number) as [number, number];
        if (serial !== (acknowledged.get(client) ?? 0) + 1) throw new Error(`Out of order in pgbench's log: ${line}`);
        acknowledged.set(client, serial);
      }
    }
    return { acknowledged, said: stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process;
    await rm(this.directory, { recursive: true });
  }
}

/** Listens to what is announced behind a port of the bridge that the guests' network has between the hosts. */
export class Announcements implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly #process;

  private constructor(device: string) {
    this.#process = labExec('wan', ['python3', here('announcements.py'), device], { buffer: false, reject: false });
  }

  static async on(device: string): Promise<Announcements> {
    const listener = new Announcements(device);
    await begun(listener.#process.stdout, (line) => listener.lines.push(line));
    return listener;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process;
  }
}
