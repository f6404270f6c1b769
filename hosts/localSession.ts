/** A session on this host: the same calls as over SSH, as plain child processes. */
import type { Readable, Writable } from 'node:stream';
import { execa } from 'execa';
import { HostError } from './errors.js';
import { endProcess, OutputTail, runToEnd } from './process.js';
import type { ExecOptions, ExecResult, HostProcess, HostSession, ProcessExit } from './session.js';

/** What a POSIX shell says of a command it cannot run: here, too, so that callers see no difference. */
const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;

export class LocalSession implements HostSession {
  readonly local = true;
  readonly closed: Promise<Error | undefined>;
  readonly #processes = new Set<HostProcess>();
  #resolveClosed: (reason: undefined) => void = () => {};
  #disposed = false;

  constructor(readonly name: string) {
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await runToEnd(
      this.name,
      () => this.spawn(argv),
      options,
      async () => this.#disposedError(),
    );
  }

  async spawn(argv: readonly string[]): Promise<HostProcess> {
    if (this.#disposed) throw this.#disposedError();
    const process = new LocalProcess(argv);
    this.#processes.add(process);
    void process.exited.then(() => this.#processes.delete(process));
    return process;
  }

  bytesOnWire(): number {
    return 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await Promise.all([...this.#processes].map(endProcess));
    this.#resolveClosed(undefined);
  }

  #disposedError(): HostError {
    return new HostError('VMMIG_HOST_COMMAND', this.name, `the session on ${this.name} has been closed`);
  }
}

class LocalProcess implements HostProcess {
  readonly command: string;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly exited: Promise<ProcessExit>;
  readonly #stderr = new OutputTail();
  readonly #kill: (signal: NodeJS.Signals) => void;

  constructor(argv: readonly string[]) {
    const [command = '', ...args] = argv;
    this.command = command;
    const child = execa(command, args, {
      stdin: 'pipe',
      buffer: false,
      reject: false,
      encoding: 'buffer',
      // It learns from its stdin that this process has ended, and knows best what then.
      cleanup: false,
      // In a session of its own, as SSH's are: signals of the terminal are not for it, and its niceness is nobody else's.
      detached: true,
    });
    this.stdin = child.stdin;
    this.stdout = child.stdout;
    this.stdin.on('error', () => {}); // it may end without reading its input
    child.stderr.on('data', (chunk: Buffer) => this.#stderr.append(chunk));
    this.#kill = (signal) => void child.kill(signal);
    this.exited = child.then((result): ProcessExit => {
      if (result.exitCode !== undefined) return { exitCode: result.exitCode, signal: null };
      if (result.signal !== undefined) return { exitCode: null, signal: result.signal };
      this.#stderr.append(Buffer.from(result.originalMessage ?? `${command} cannot be run`));
      return { exitCode: result.code === 'ENOENT' ? NOT_FOUND : NOT_EXECUTABLE, signal: null };
    });
  }

  stderrTail(): string {
    return this.#stderr.toString();
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endProcess(this);
  }
}
