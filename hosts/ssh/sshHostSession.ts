/**
 * A host session over SSH. Commands are run so that no shell changes their arguments, and so that they can be killed:
 * sshd passes no signals on for root, so that each process says its pid first, on stderr.
 *
 *     exec /bin/sh -c 'echo "vmmig-pid:$$" >&2; exec "$@"' vmmig ARGV…      (the login shell sees this)
 */
import type { Readable, Writable } from 'node:stream';
import type { ClientChannel } from 'ssh2';
import { HostError } from '../errors.js';
import type { InventoryHost } from '../inventory/types.js';
import { endProcess, OutputTail, runToEnd } from '../process.js';
import { quoteShell } from '../quote.js';
import type { ExecOptions, ExecResult, HostProcess, HostSession, ProcessExit } from '../session.js';
import { type ConnectOptions, SshSession } from './sshSession.js';
import { resolveTarget } from './target.js';

const START_SCRIPT = 'echo "vmmig-pid:$$" >&2; exec "$@"';
/** For the rest of a process's output, after the news of its exit. */
const OUTPUT_GRACE_MS = 500;
const PID_LINE = /^vmmig-pid:(\d+)\n/m;

/** @throws HostError as `SshSession.connect`; the signal's reason when aborted. */
export async function openSshHostSession(
  host: InventoryHost,
  { silenceLimitMs, ...options }: ConnectOptions & { silenceLimitMs?: number },
): Promise<HostSession> {
  const ssh = await SshSession.connect(await resolveTarget(host, silenceLimitMs), options);
  return new SshHostSession(host.name, ssh);
}

class SshHostSession implements HostSession {
  readonly local = false;
  readonly closed: Promise<Error | undefined>;
  readonly #ssh: SshSession;
  readonly #processes = new Set<HostProcess>();

  constructor(
    readonly name: string,
    ssh: SshSession,
  ) {
    this.#ssh = ssh;
    this.closed = ssh.closed;
  }

  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const lost = async () => (await this.closed) ?? this.#disposedError();
    return await runToEnd(this.name, () => this.spawn(argv), options, lost);
  }

  async spawn(argv: readonly string[]): Promise<HostProcess> {
    const command = `exec ${quoteShell(['/bin/sh', '-c', START_SCRIPT, 'vmmig', ...argv])}`;
    const process = new RemoteProcess(argv[0] ?? '', await this.#ssh.exec(command), this.#ssh);
    this.#processes.add(process);
    void process.exited.then(() => this.#processes.delete(process));
    return process;
  }

  bytesOnWire(): number {
    return this.#ssh.bytesOnWire();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#processes].map(endProcess));
    await this.#ssh[Symbol.asyncDispose]();
  }

  #disposedError(): HostError {
    return new HostError('VMMIG_SSH_LOST', this.name, `the SSH session to ${this.name} has been closed`);
  }
}

class RemoteProcess implements HostProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly exited: Promise<ProcessExit>;
  readonly #ssh: SshSession;
  readonly #stderr = new OutputTail();
  readonly #pid: Promise<number | undefined>;

  constructor(
    readonly command: string,
    channel: ClientChannel,
    ssh: SshSession,
  ) {
    this.#ssh = ssh;
    this.stdin = channel;
    this.stdout = channel;
    channel.on('error', () => {}); // its end is told by `exited`, why by the session's `closed`
    this.exited = exitOf(channel, ssh);
    this.#pid = this.#readStderr(channel.stderr);
  }

  stderrTail(): string {
    return this.#stderr.toString();
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const pid = await Promise.race([this.#pid, this.exited.then(() => undefined)]);
    if (pid === undefined) return;
    const killing = await this.#ssh
      .exec(quoteShell(['kill', '-s', signal.slice('SIG'.length), String(pid)]))
      .catch(() => undefined);
    killing?.resume();
    if (killing) await exitOf(killing, this.#ssh);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endProcess(this);
  }

  /** Takes the pid out of stderr; what a login script wrote before it stays. */
  #readStderr(stderr: Readable): Promise<number | undefined> {
    return new Promise((resolve) => {
      let before: Buffer | undefined = Buffer.alloc(0);
      stderr.on('data', (chunk: Buffer) => {
        if (before === undefined) return this.#stderr.append(chunk);
        const text: string = Buffer.concat([before, chunk]).toString('latin1');
        const match = PID_LINE.exec(text);
        before = match ? undefined : Buffer.from(text, 'latin1');
        if (!match) return;
        this.#stderr.append(Buffer.from(text.replace(PID_LINE, ''), 'latin1'));
        resolve(Number(match[1]));
      });
      stderr.on('end', () => {
        if (before) this.#stderr.append(before);
        resolve(undefined);
      });
    });
  }
}

/** How a process ended, once its output has been delivered too, unless a child of its own keeps that open. */
function exitOf(channel: ClientChannel, ssh: SshSession): Promise<ProcessExit> {
  return new Promise((resolve) => {
    let exit: ProcessExit = { exitCode: null, signal: null };
    const settle = () => resolve(exit);
    channel.on('exit', (exitCode: number | null, signal?: string) => {
      exit = { exitCode, signal: signal ?? null };
      setTimeout(settle, OUTPUT_GRACE_MS).unref();
    });
    channel.on('close', settle);
    void ssh.closed.then(settle);
  });
}
