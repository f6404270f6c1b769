/**
 * The commands of qemu-guest-agent that are used, and what they return: checked before use, because it comes from the
 * guest. Source: QEMU's qga/qapi-schema.json.
 */
import * as z from 'zod';
import { AgentError } from '../errors.js';
import { printable } from './replies.js';
import type { QgaTransport } from './transport.js';

/** The guest carries them out one after the other, in no time, unless its processors are busy. */
const COMMAND_TIMEOUT_MS = 5_000;

/** As a number: the names are younger. */
const SEEK_CUR = 1;

const identifier = z.number().int().nonnegative();
const infoSchema = z.object({
  version: z.string().max(100),
  supported_commands: z.array(z.object({ name: z.string().max(100), enabled: z.boolean() })).max(1_000),
});
const execSchema = z.object({ pid: identifier });
const statusSchema = z.object({
  exited: z.boolean(),
  exitcode: z.number().int().optional(),
  signal: z.number().int().optional(),
  'err-data': z.string().optional(),
});
const readSchema = z.object({ count: identifier, 'buf-b64': z.string() });
const seekSchema = z.object({ position: identifier });
const writeSchema = z.object({ count: identifier });

export interface QgaInfo {
  version: string;
  /** Commands that may be used. */
  enabled: ReadonlySet<string>;
}

export interface QgaProcessEnd {
  /** Null when a signal ended it. */
  exitCode: number | null;
  /** The beginning of what it wrote to its standard error, printable. */
  message: string;
}

export class QgaCommands {
  readonly #transport: QgaTransport;
  readonly #signal: AbortSignal | undefined;
  readonly #timeoutMs: number;

  constructor(transport: QgaTransport, limits: { signal?: AbortSignal | undefined; timeoutMs?: number } = {}) {
    this.#transport = transport;
    this.#signal = limits.signal;
    this.#timeoutMs = limits.timeoutMs ?? COMMAND_TIMEOUT_MS;
  }

  async info(): Promise<QgaInfo> {
    const info = await this.#execute('guest-info', {}, infoSchema);
    const enabled = info.supported_commands.filter((command) => command.enabled).map(({ name }) => name);
    return { version: printable(info.version, 40), enabled: new Set(enabled) };
  }

  /** Starts a program; its id. Its output is kept until its end was asked for. */
  async start(path: string, args: readonly string[], input: Uint8Array): Promise<number> {
    const all = { path, arg: args, 'input-data': Buffer.from(input).toString('base64'), 'capture-output': true };
    return (await this.#execute('guest-exec', all, execSchema)).pid;
  }

  /** How a program ended that was started here; null while it runs. Can be asked once after the end. */
  async end(pid: number): Promise<QgaProcessEnd | null> {
    const status = await this.#execute('guest-exec-status', { pid }, statusSchema);
    if (!status.exited) return null;
    const message = printable(Buffer.from(status['err-data'] ?? '', 'base64').toString('utf8'), 300);
    return { exitCode: status.exitcode ?? null, message };
  }

  /** @param mode - as in fopen(3) */
  async open(path: string, mode: 'r' | 'r+'): Promise<number> {
    return await this.#execute('guest-file-open', { path, mode }, identifier);
  }

  /** What comes next in the file: at most `countBytes`, nothing at its present end. */
  async read(handle: number, countBytes: number): Promise<Buffer> {
    const reply = await this.#execute('guest-file-read', { handle, count: countBytes }, readSchema);
    const bytes = Buffer.from(reply['buf-b64'], 'base64');
    if (bytes.length !== reply.count || reply.count > countBytes) throw nonsense('guest-file-read');
    return bytes;
  }

  /** How much of the file has been read. */
  async position(handle: number): Promise<number> {
    const nowhere = { handle, offset: 0, whence: SEEK_CUR };
    return (await this.#execute('guest-file-seek', nowhere, seekSchema)).position;
  }

  /** Writes all of it, and to the file at once. */
  async write(handle: number, bytes: Uint8Array): Promise<void> {
    const text = Buffer.from(bytes).toString('base64');
    const { count } = await this.#execute('guest-file-write', { handle, 'buf-b64': text }, writeSchema);
    if (count !== bytes.length) throw nonsense('guest-file-write');
    await this.#execute('guest-file-flush', { handle }, z.unknown());
  }

  async close(handle: number): Promise<void> {
    await this.#execute('guest-file-close', { handle }, z.unknown());
  }

  async #execute<T>(command: string, args: Readonly<Record<string, unknown>>, schema: z.ZodType<T>): Promise<T> {
    const limits = { signal: this.#signal, timeoutMs: this.#timeoutMs };
    const parsed = schema.safeParse(await this.#transport.execute(command, args, limits));
    if (!parsed.success) throw nonsense(command);
    return parsed.data;
  }
}

function nonsense(command: string): AgentError {
  return new AgentError('VMMIG_AGENT_PROTOCOL', `qemu-guest-agent's answer to ${command} makes no sense`);
}
