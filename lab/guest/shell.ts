/**
 * Runs commands in the tiny guest, over the virtio-serial port `org.vmmig.lab.0`. The guest's end of the conversation,
 * and its grammar, is tools/commandServer.c. The guest goes on answering when the host side reconnects or the guest has
 * moved; a shell object is one connection.
 */
import { randomUUID } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from '../errors.js';

export interface ShellResult {
  /** Standard output and standard error, in the order they were written. */
  stdout: string;
  exitCode: number;
}

interface PendingCommand {
  chunks: string[];
  settle: (exitCode: number | Error) => void;
}

export class GuestShell implements AsyncDisposable {
  private readonly pending = new Map<string, PendingCommand>();
  private rest = '';
  private ended = false;

  private constructor(private readonly socket: Socket) {
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => this.receive(text));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.ended = true;
      const error = new LabError('VMMIG_LAB_GUEST', 'The connection to the guest shell ended');
      for (const command of this.pending.values()) command.settle(error);
    });
    socket.write('\n');
  }

  /** Connects to the chardev socket at `path`, waiting for it to appear. The guest may still be booting. */
  static async connect(path: string, options: { signal?: AbortSignal; timeoutMs?: number } = {}): Promise<GuestShell> {
    const deadline = Date.now() + (options.timeoutMs ?? 10_000);
    for (;;) {
      options.signal?.throwIfAborted();
      const socket = connect(path);
      const error = await new Promise<Error | undefined>((resolve) => {
        socket.once('connect', () => resolve(undefined)).once('error', resolve);
      });
      if (error === undefined) return new GuestShell(socket);
      if (Date.now() > deadline) {
        throw new LabError('VMMIG_LAB_TIMEOUT', `No guest shell at ${path}: ${error.message}`, { cause: error });
      }
      await sleep(50);
    }
  }

  /**
   * Runs `command` with the guest's /bin/sh. A command that exceeds `timeoutMs` (default 30 s) is killed in the guest and
   * ends with code 137; a guest that does not answer at all is a `VMMIG_LAB_TIMEOUT`.
   */
  async run(command: string, options: { signal?: AbortSignal; timeoutMs?: number } = {}): Promise<ShellResult> {
    options.signal?.throwIfAborted();
    if (this.ended) throw new LabError('VMMIG_LAB_GUEST', 'The connection to the guest shell ended');
    const timeoutMs = options.timeoutMs ?? 30_000;
    const id = randomUUID();
    const chunks: string[] = [];
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    try {
      const exitCode = await new Promise<number>((resolve, reject) => {
        const settle = (result: number | Error) => (typeof result === 'number' ? resolve(result) : reject(result));
        onAbort = () => reject(options.signal?.reason);
        options.signal?.addEventListener('abort', onAbort, { once: true });
        const silent = new LabError('VMMIG_LAB_TIMEOUT', `The guest did not answer within ${timeoutMs} ms: ${command}`);
        timer = setTimeout(() => reject(silent), timeoutMs + 2000);
        this.pending.set(id, { chunks, settle });
        this.socket.write(`run ${id} ${timeoutMs} ${escapeText(Buffer.from(command).toString('latin1'))}\n`, 'latin1');
      });
      return { stdout: Buffer.from(unescapeText(chunks.join('')), 'latin1').toString('utf8'), exitCode };
    } finally {
      clearTimeout(timer);
      if (onAbort) options.signal?.removeEventListener('abort', onAbort);
      this.pending.delete(id);
    }
  }

  /** Like `run`, but a failing command is an error; returns its trimmed output. */
  async output(command: string, options: { signal?: AbortSignal; timeoutMs?: number } = {}): Promise<string> {
    const { stdout, exitCode } = await this.run(command, options);
    if (exitCode !== 0)
      throw new LabError('VMMIG_LAB_GUEST', `In the guest, "${command}" ended ${exitCode}: ${stdout}`);
    return stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended) return;
    const closed = new Promise((resolve) => this.socket.once('close', resolve));
    this.socket.destroy();
    await closed;
  }

  private receive(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop()!;
    for (const line of lines) {
      const match = /^(out|end) (\S+) (.*)$/s.exec(line);
      const command = match ? this.pending.get(match[2]!) : undefined;
      if (!match || !command) continue;
      if (match[1] === 'out') command.chunks.push(match[3]!);
      else command.settle(Number(match[3]));
    }
  }
}

function escapeText(text: string): string {
  return text.replace(/[%\n]/g, (character) => (character === '%' ? '%25' : '%0A'));
}

function unescapeText(text: string): string {
  return text.replace(/%25|%0A/g, (escaped) => (escaped === '%25' ? '%' : '\n'));
}
