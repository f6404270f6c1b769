/** The calling end of the RPC: requests with deadlines and cancellation, which never outlive the connection. */
import type { Readable, Writable } from 'node:stream';
import {
  CancellationTokenSource,
  createMessageConnection,
  ErrorCodes,
  type MessageConnection,
  ResponseError,
} from 'vscode-jsonrpc/node';
import { HostError } from '../errors.js';
import { type Hello, ownHello, parseHello, RPC_PROTOCOL } from './handshake.js';
import { JsonLineReader, JsonLineWriter } from './jsonLines.js';
import { fromResponseError } from './remoteError.js';

/** Node has to start and load vmmig on a host that may be busy. */
const HANDSHAKE_TIMEOUT_MS = 20_000;
/** JSON-RPC errors that do not come from the other end. */
const LOCAL_ERRORS: ReadonlySet<number> = new Set([
  ErrorCodes.MessageWriteError,
  ErrorCodes.PendingResponseRejected,
  ErrorCodes.ConnectionInactive,
]);

export interface ConnectRpcOptions {
  /** The other end's name, for messages. */
  host?: string;
  /** This vmmig's version, for the other end's messages. */
  version?: string;
  signal?: AbortSignal;
  /** For the handshake. Default: 20 s. */
  timeoutMs?: number;
  /** Finds out why the streams ended. Default: nothing more is known than that they did. */
  whyEnded?: (duringHandshake: boolean) => Promise<Error>;
}

export interface RequestOptions {
  /** Cancels the request on the other end, and rejects at once with the signal's reason. A late answer is dropped. */
  signal?: AbortSignal | undefined;
  /** Cancels likewise, and rejects with VMMIG_HOST_TIMEOUT. Default: none. */
  timeoutMs?: number;
}

export interface RpcClient extends AsyncDisposable {
  readonly host: string;
  /** What the other end says of itself. Rejects like everything that was asked for when it says something else, or nothing. */
  readonly greeted: Promise<Hello>;
  /**
   * Calls a method.
   * @returns its result; the other end is trusted to give the shape that its method has.
   * @throws RemoteError with what was thrown there; HostError VMMIG_HOST_TIMEOUT; the reason the connection ended.
   */
  request<Result = unknown>(method: string, params?: object, options?: RequestOptions): Promise<Result>;
  /** Sends without an answer. Dropped when the connection has ended. */
  notify(method: string, params?: object): Promise<void>;
  /** Registers a handler of a notification; all that are registered are called. What comes without one is dropped. */
  onNotification<Params = unknown>(method: string, handler: (params: Params) => void): Disposable;
  /** Resolves when the connection is over: undefined when it was disposed of, else why. */
  readonly closed: Promise<Error | undefined>;
}

/**
 * Speaks to `serveRpc` on the other end of the streams, without waiting for it: what is asked for before it is up waits
 * there. Nothing that it answers counts before its handshake.
 * @param stdout what the other end writes.
 * @param stdin what the other end reads; ended when the client is disposed of.
 */
export function openRpc(stdout: Readable, stdin: Writable, options: ConnectRpcOptions = {}): RpcClient {
  return new Client(new JsonLineReader(stdout), new JsonLineWriter(stdin), options);
}

/**
 * As `openRpc`, and waits for the handshake.
 * @throws HostError VMMIG_HOST_INCOMPATIBLE when something else answers, VMMIG_HOST_TIMEOUT when nothing does, what
 *   `whyEnded` gives when the streams end; the signal's reason when aborted.
 */
export async function connectRpc(stdout: Readable, stdin: Writable, options?: ConnectRpcOptions): Promise<RpcClient> {
  const client = openRpc(stdout, stdin, options);
  await client.greeted;
  return client;
}

function judge(line: string, host: string, version: string): Hello | HostError {
  const hello = parseHello(line);
  if (!hello) {
    return new HostError(
      'VMMIG_HOST_INCOMPATIBLE',
      host,
      `${host} answered ${JSON.stringify(line.slice(0, 200))} where vmmig's handshake was expected. ` +
        'If a login script there (such as ~/.bashrc) prints this, make it do so for interactive shells only; ' +
        'else check the `vmmig` command of the host in the inventory.',
    );
  }
  if (hello.protocol === RPC_PROTOCOL) return hello;
  return new HostError(
    'VMMIG_HOST_INCOMPATIBLE',
    host,
    `vmmig ${hello.version} on ${host} speaks protocol ${hello.protocol}, vmmig ${version} here speaks ${RPC_PROTOCOL}: ` +
      'install the same version on both.',
  );
}

class Client implements RpcClient {
  readonly host: string;
  readonly greeted: Promise<Hello>;
  readonly closed: Promise<Error | undefined>;
  readonly #connection: MessageConnection;
  readonly #reader: JsonLineReader;
  readonly #writer: JsonLineWriter;
  readonly #pending = new Set<(error: Error) => void>();
  readonly #handlers = new Map<string, Set<(params: never) => void>>();
  readonly #resolveClosed: (error: Error | undefined) => void;
  /** Set from the first sign of the end; the reason may take a moment longer. */
  #ending = false;
  #end: { error: Error | undefined } | undefined;

  constructor(reader: JsonLineReader, writer: JsonLineWriter, options: ConnectRpcOptions) {
    const { host = 'the other end', version = 'unknown', whyEnded } = options;
    this.host = host;
    this.#reader = reader;
    this.#writer = writer;
    this.#connection = createMessageConnection(reader, writer);
    const { promise, resolve } = withResolvers<Error | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    let isGreeted = false;
    const ended = async () => new HostError('VMMIG_HOST_SERVICE_ENDED', host, `${host} closed the connection`);
    const onEnd = (error?: Error) => {
      if (this.#ending) return;
      this.#ending = true;
      if (error) this.#finish(error);
      else void (whyEnded ?? ended)(!isGreeted).then((reason) => this.#finish(reason));
    };
    this.#connection.onClose(() => onEnd());
    // A write error is the symptom of an end whose reason `whyEnded` knows better.
    this.#connection.onError(([error, message]) =>
      onEnd(message === undefined && !reader.ended ? this.#garbled(error) : undefined),
    );
    this.#connection.onNotification((method: string, params: unknown) => {
      for (const handler of this.#handlers.get(method) ?? []) handler(params as never);
    });
    // A write that fails means that the other end is gone: its stdout tells, or its exit.
    writer.write(ownHello(version)).catch(() => {});
    this.greeted = this.#greet(version, options).then((hello) => {
      isGreeted = true;
      return hello;
    });
    this.greeted.catch(() => {});
    this.#connection.listen();
  }

  #greet(version: string, { signal, timeoutMs = HANDSHAKE_TIMEOUT_MS }: ConnectRpcOptions): Promise<Hello> {
    const { host } = this;
    return new Promise((resolve, reject) => {
      const settle = (outcome: Hello | Error) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        if (!(outcome instanceof Error)) return resolve(outcome);
        this.#finish(outcome);
        reject(outcome);
      };
      const onAbort = () => settle(toError(signal?.reason));
      const timer = setTimeout(() => {
        const heard = this.#reader.unfinishedLine;
        const what = heard === '' ? 'said nothing' : `said only ${JSON.stringify(heard.slice(0, 200))}`;
        const message = `vmmig on ${host} ${what} within ${timeoutMs} ms of being started`;
        settle(new HostError('VMMIG_HOST_TIMEOUT', host, message));
      }, timeoutMs);
      void this.closed.then((error) => settle(error ?? this.#disposedError()));
      if (signal?.aborted) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#reader.onFirstLine((line) => settle(judge(line, host, version)));
    });
  }

  request<Result>(method: string, params?: object, options: RequestOptions = {}): Promise<Result> {
    const { signal, timeoutMs } = options;
    return new Promise((resolve, reject) => {
      if (this.#end) return reject(this.#end.error ?? this.#disposedError());
      if (signal?.aborted) return reject(signal.reason);
      const cancellation = new CancellationTokenSource();
      const release = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#pending.delete(fail);
        cancellation.dispose();
      };
      const fail = (error: unknown) => {
        release();
        reject(error instanceof ResponseError ? fromResponseError(this.host, error) : error);
      };
      const cancel = (error: unknown) => {
        cancellation.cancel();
        fail(error);
      };
      const onAbort = () => cancel(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              const message = `${this.host} did not answer "${method}" within ${timeoutMs} ms`;
              cancel(new HostError('VMMIG_HOST_TIMEOUT', this.host, message));
            }, timeoutMs);
      this.#pending.add(fail);
      if (this.#ending) return; // the reason is on its way to `fail`
      this.#connection.sendRequest<Result>(method, params ?? {}, cancellation.token).then(
        (result) => {
          release();
          resolve(result);
        },
        (error: unknown) => {
          if (!isLocal(error)) fail(error);
          else if (this.#writer.writable)
            fail(new TypeError(`the parameters of "${method}" cannot be sent`, { cause: error }));
          // Else the connection is ending, which tells `fail` why.
        },
      );
    });
  }

  async notify(method: string, params?: object): Promise<void> {
    if (this.#ending || this.#end) return;
    await this.#connection.sendNotification(method, params ?? {}).catch(() => {});
  }

  onNotification<Params>(method: string, handler: (params: Params) => void): Disposable {
    const handlers = this.#handlers.get(method) ?? new Set();
    this.#handlers.set(method, handlers.add(handler));
    return { [Symbol.dispose]: () => void handlers.delete(handler) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish(undefined);
  }

  #finish(error: Error | undefined): void {
    if (this.#end) return;
    this.#end = { error };
    for (const fail of [...this.#pending]) fail(error ?? this.#disposedError());
    this.#connection.dispose();
    this.#writer.end();
    this.#resolveClosed(error);
  }

  #garbled(error: Error): HostError {
    const message = `what vmmig on ${this.host} sent cannot be read: ${error.message}`;
    return new HostError('VMMIG_HOST_INCOMPATIBLE', this.host, message, { cause: error });
  }

  #disposedError(): HostError {
    return new HostError(
      'VMMIG_HOST_SERVICE_ENDED',
      this.host,
      `the connection to vmmig on ${this.host} was closed by this end`,
    );
  }
}

/** Whether a rejection is of this end's making: the request was not sent, or its answer will not come. */
function isLocal(error: unknown): boolean {
  return !(error instanceof ResponseError) || LOCAL_ERRORS.has(error.code);
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
