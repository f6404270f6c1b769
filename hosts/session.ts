/**
 * A host that commands can be run on: this one, or another over SSH. What is run there, and why, is not known here.
 */
import type { Readable, Writable } from 'node:stream';

export interface ExecOptions {
  signal?: AbortSignal;
  /** Ends the process and rejects with VMMIG_HOST_TIMEOUT. Default: none. */
  timeoutMs?: number;
  /** Written to the process's stdin, which is then closed. Default: closed at once. */
  input?: string | Uint8Array;
}

export interface ExecResult {
  /** Null when a signal ended the process. */
  exitCode: number | null;
  /** As in `SIGKILL`; null when the process exited by itself. */
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface ProcessExit {
  exitCode: number | null;
  /** As in `SIGKILL`. Both are null when the connection to the host was lost and nobody knows. */
  signal: string | null;
}

/** A process on a host, spoken to over its stdio. */
export interface HostProcess extends AsyncDisposable {
  /** The first word of its command line, for messages. */
  readonly command: string;
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** The last 16 KiB of what it wrote to stderr so far. */
  stderrTail(): string;
  /** Never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** Sends a signal, SIGTERM by default. Resolves when it was handed over, whatever the process makes of it. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

export interface HostSession extends AsyncDisposable {
  /** The host's name in the inventory. */
  readonly name: string;
  /** Whether the host is the one this process runs on. */
  readonly local: boolean;
  /**
   * Runs a command to its end. A non-zero exit is a result, not an error.
   * @param argv handed to the process as it is: no shell sees it.
   * @throws HostError VMMIG_HOST_COMMAND, VMMIG_HOST_TIMEOUT, VMMIG_SSH_LOST; the signal's reason when aborted.
   */
  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Starts a process that speaks on stdio. It is ended when the session is disposed of. */
  spawn(argv: readonly string[]): Promise<HostProcess>;
  /** Bytes that the session has put on and taken off the network, SSH's own included. 0 for this host. */
  bytesOnWire(): number;
  /** Resolves when the session is over: undefined when it was disposed of, else why it was lost. */
  readonly closed: Promise<Error | undefined>;
}
