/** What local and remote processes have in common: the tail of stderr, running to the end, ending for good. */
import { setTimeout as delay } from 'node:timers/promises';
import { HostError } from './errors.js';
import type { ExecOptions, ExecResult, HostProcess } from './session.js';

const TAIL_BYTES = 16 * 1024;
/** What a command run with `exec` may print: lists and small files, no images. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
/** A process whose stdin ended has this long until SIGTERM, and then again until SIGKILL. */
const END_GRACE_MS = 1_000;

/** The last 16 KiB of a stream. */
export class OutputTail {
  #chunks: Buffer[] = [];
  #bytes = 0;

  append(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes > 2 * TAIL_BYTES) this.#cut();
  }

  toString(): string {
    this.#cut();
    return this.#chunks[0]?.toString('utf8') ?? '';
  }

  #cut(): void {
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(Math.max(0, all.length - TAIL_BYTES))];
    this.#bytes = this.#chunks[0]?.length ?? 0;
  }
}

/**
 * Feeds a process its input, collects its output and waits for its end. The process is killed when that fails.
 * @param lost why the connection to the host is gone, asked when nobody knows how the process ended.
 */
export async function runToEnd(
  host: string,
  start: () => Promise<HostProcess>,
  options: ExecOptions,
  lost: () => Promise<Error>,
): Promise<ExecResult> {
  const { signal, timeoutMs, input } = options;
  signal?.throwIfAborted();
  const { promise: interrupted, release } = interruption(host, signal, timeoutMs);
  const starting = start();
  try {
    const process = await Promise.race([starting, interrupted]);
    process.stdin.on('error', () => {}); // it may end without reading its input
    process.stdin.end(input ?? '');
    const stdout = await Promise.race([readAll(host, process), interrupted]);
    const exit = await Promise.race([process.exited, interrupted]);
    if (exit.exitCode === null && exit.signal === null) throw await lost();
    return { ...exit, stdout, stderr: process.stderrTail() };
  } catch (error) {
    // Not awaited: whoever gave up has no time to wait for a host that may not answer.
    void starting.then((process) => process.kill('SIGKILL')).catch(() => {});
    throw error;
  } finally {
    release();
  }
}

/** Ends a process: its stdin first, which is how a service is asked to go, then by signals. */
export async function endProcess(process: HostProcess): Promise<void> {
  process.stdin.on('error', () => {});
  process.stdin.end();
  process.stdout.resume(); // what nobody reads must not keep it from ending
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (await settles(process.exited, END_GRACE_MS)) return;
    await process.kill(signal);
  }
  await settles(process.exited, END_GRACE_MS);
}

async function readAll(host: string, { command, stdout }: HostProcess): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  await new Promise<void>((resolve, reject) => {
    stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MAX_OUTPUT_BYTES) return void chunks.push(chunk);
      stdout.pause();
      reject(
        new HostError('VMMIG_HOST_COMMAND', host, `"${command}" on ${host} printed over ${MAX_OUTPUT_BYTES} bytes`),
      );
    });
    stdout.once('end', resolve);
    stdout.once('close', resolve); // without an end, when the connection is lost
    stdout.once('error', reject);
  });
  return Buffer.concat(chunks).toString('utf8');
}

function interruption(host: string, signal: AbortSignal | undefined, timeoutMs: number | undefined) {
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<never>((_, rejectWith) => {
    reject = rejectWith;
  });
  promise.catch(() => {});
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const onTimeout = () =>
    reject(new HostError('VMMIG_HOST_TIMEOUT', host, `a command on ${host} did not end within ${timeoutMs} ms`));
  const timer = timeoutMs === undefined ? undefined : setTimeout(onTimeout, timeoutMs);
  const release = () => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  };
  return { promise, release };
}

async function settles(promise: Promise<unknown>, withinMs: number): Promise<boolean> {
  const cancel = new AbortController();
  const timeout = delay(withinMs, false, { signal: cancel.signal }).catch(() => false);
  const settled = await Promise.race([promise.then(() => true), timeout]);
  cancel.abort();
  return settled;
}
