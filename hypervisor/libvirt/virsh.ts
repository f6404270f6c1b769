/**
 * A `virsh` that is kept running: starting one takes longer than most of what it is asked. It speaks its interactive
 * mode over pipes, one command after the other, each followed by an `echo` whose answer marks the end:
 *
 *     virsh # domstate --reason vm1            what was sent, as a terminal would show it: one line, maybe abridged
 *     running (booted)                         stdout and stderr, `error: …` when it failed
 *     virsh # echo END-…
 *     END-…
 *     virsh #
 *
 * Not for what takes long, or has to outlive this process: see migrateDomain.ts.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';
import { LibvirtError, libvirtError, reasonIn } from './errors.js';

export interface VirshLimits {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  /** Everything else that is asked meanwhile goes first. */
  readonly isPatient?: boolean | undefined;
}

const defaultTimeoutMs = 20_000;
const prompt = 'virsh # ';
/** Longest answer; `info mtree -f` of a large machine takes a few hundred KiB. */
const maxAnswerLength = 32 * 1024 * 1024;

type Shell = ChildProcessByStdio<Writable, Readable, null>;

export class Virsh implements AsyncDisposable {
  readonly uri: string;
  #shell: Shell | null = null;
  readonly #urgent: (() => Promise<void>)[] = [];
  readonly #patient: (() => Promise<void>)[] = [];
  #turn: Promise<void> | null = null;
  #isClosed = false;

  /** Starts with the first command. */
  constructor(uri: string) {
    this.uri = uri;
  }

  /**
   * Resolves with what the command printed, without the empty lines around it.
   * @param words - the command and its arguments; no control characters, which a terminal would take for keys
   * @throws LibvirtError
   */
  run(words: readonly string[], limits: VirshLimits = {}): Promise<string> {
    return new Promise((resolve, reject) => {
      const waiting = limits.isPatient ? this.#patient : this.#urgent;
      waiting.push(() => this.#answer(words, limits).then(resolve, reject));
      this.#turn ??= this.#takeTurns();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#turn;
    this.#end();
  }

  async #takeTurns(): Promise<void> {
    for (;;) {
      const next = this.#urgent.shift() ?? this.#patient.shift();
      if (next === undefined) break;
      await next();
    }
    this.#turn = null;
  }

  async #answer(words: readonly string[], limits: VirshLimits): Promise<string> {
    limits.signal?.throwIfAborted();
    if (this.#isClosed) throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', 'virsh has been ended');
    const line = words.map(quoted).join(' ');
    const end = `END-${randomUUID()}`;
    const marker = `${prompt}echo ${end}\n${end}`;
    try {
      const shell = this.#shell ?? (await this.#start(limits));
      const text = await said(shell, words[0]!, limits, `${line}\necho ${end}\n`, (sofar) => {
        const endsAt = sofar.lastIndexOf(marker);
        return endsAt >= 0 && sofar.length > endsAt + marker.length && sofar.endsWith(prompt);
      });
      const answer = text.slice(text.indexOf('\n') + 1, text.lastIndexOf(marker)).trim();
      if (/^error: /m.test(answer) && !/^[{<]/.test(answer)) throw libvirtError(answer);
      return answer;
    } catch (thrown) {
      // What it still has to say would be taken for the answer to something else.
      if (!(thrown instanceof LibvirtError) || thrown.code === 'VMMIG_LIBVIRT_UNREACHABLE') this.#end();
      throw thrown;
    }
  }

  async #start(limits: VirshLimits): Promise<Shell> {
    // One pipe for both, so that an error comes before the marker that follows it.
    const shell = spawn('/bin/sh', ['-c', 'exec virsh --quiet --connect "$1" 2>&1', 'sh', this.uri], {
      env: { ...process.env, LC_ALL: 'C', TERM: 'dumb', VIRSH_HISTSIZE: '0' },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    shell.stdout.setEncoding('utf8');
    shell.on('error', () => {});
    shell.stdin.on('error', () => {});
    this.#shell = shell;
    await said(shell, 'connect', limits, '', (sofar) => sofar.endsWith(prompt));
    return shell;
  }

  #end(): void {
    this.#shell?.kill('SIGKILL');
    this.#shell = null;
  }
}

/** What it says from now on until that is complete. */
function said(
  shell: Shell,
  doing: string,
  { signal, timeoutMs = defaultTimeoutMs }: VirshLimits,
  input: string,
  isComplete: (text: string) => boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const finish = (error: unknown): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      shell.stdout.off('data', onData);
      shell.off('close', onClose);
      if (error === null) resolve(text);
      else reject(error);
    };
    const fail = (why: string): void => finish(new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', why));
    const onData = (chunk: string): void => {
      text += chunk;
      if (text.length > maxAnswerLength) fail(`virsh has too much to say to "${doing}"`);
      else if (isComplete(text)) finish(null);
    };
    const onClose = (): void => fail(`virsh ended: ${reasonIn(text)}`);
    const onAbort = (): void => finish(signal?.reason);
    const timer = setTimeout(() => fail(`libvirt has not answered to "${doing}" within ${timeoutMs} ms`), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    shell.stdout.on('data', onData);
    shell.once('close', onClose);
    shell.stdin.write(input);
  });
}

/** As virsh reads it: within single quotes everything stands for itself. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
