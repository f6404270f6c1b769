/**
 * The answering end of the RPC: `vmmig host-service` on its stdio. Nothing else in that process may write to stdout.
 * The service lives as long as its stdin: an SSH connection that ends, for whatever reason, ends it too.
 */
import type { Readable, Writable } from 'node:stream';
import { type CancellationToken, createMessageConnection, ErrorCodes, ResponseError } from 'vscode-jsonrpc/node';
import { HostError } from '../errors.js';
import { ownHello, parseHello, RPC_PROTOCOL } from './handshake.js';
import { JsonLineReader, JsonLineWriter } from './jsonLines.js';
import { toResponseError } from './remoteError.js';

export interface RpcContext {
  /** Aborted when the caller cancels the request, and when the connection ends. */
  readonly signal: AbortSignal;
}

/** Params are what the caller sent: as hostile as any input, to be checked before use. */
export type RpcHandler = (params: unknown, context: RpcContext) => Promise<unknown>;

export interface ServeRpcOptions {
  /** This vmmig's version, for the other end's messages. */
  version?: string;
}

export interface RpcServer extends AsyncDisposable {
  /** Sends without an answer. Dropped when the connection has ended, or has not begun. */
  notify(method: string, params?: object): Promise<void>;
  /**
   * Resolves when the connection is over: undefined when the other end closed it or this one disposed of it, else what
   * is wrong with the other end. Requests under way have been aborted by then.
   */
  readonly closed: Promise<Error | undefined>;
}

/**
 * Serves requests until stdin ends.
 * @param handlers by method name. What they throw reaches the caller with its `code`, message and fields.
 */
export function serveRpc(
  stdin: Readable,
  stdout: Writable,
  handlers: Readonly<Record<string, RpcHandler>>,
  options: ServeRpcOptions = {},
): RpcServer {
  const { version = 'unknown' } = options;
  const reader = new JsonLineReader(stdin);
  const writer = new JsonLineWriter(stdout);
  const connection = createMessageConnection(reader, writer);
  const ended = new AbortController();
  let open = false;
  let finish: (error: Error | undefined) => void = () => {};
  const closed = new Promise<Error | undefined>((resolve) => {
    finish = (error) => {
      if (ended.signal.aborted) return;
      open = false;
      ended.abort(error ?? new HostError('VMMIG_HOST_SERVICE_ENDED', 'caller', 'the caller closed the connection'));
      connection.dispose();
      resolve(error);
    };
  });
  connection.onClose(() => finish(undefined));
  connection.onError(([error]) => finish(error));
  connection.onRequest(async (method, params, token) => {
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
    if (!handler)
      return new ResponseError(ErrorCodes.MethodNotFound, `unknown method "${method}"`, {
        code: 'VMMIG_HOST_INCOMPATIBLE',
      });
    const abort = new AbortController();
    const cancellation = onCancel(token, () => abort.abort());
    try {
      return await handler(params, { signal: AbortSignal.any([abort.signal, ended.signal]) });
    } catch (error) {
      return toResponseError(error);
    } finally {
      cancellation[Symbol.dispose]();
    }
  });
  reader.onFirstLine((line) => {
    const hello = parseHello(line);
    if (hello?.protocol !== RPC_PROTOCOL) {
      const got = hello ? `protocol ${hello.protocol} (vmmig ${hello.version})` : JSON.stringify(line.slice(0, 200));
      return finish(
        new HostError('VMMIG_HOST_INCOMPATIBLE', 'caller', `the caller speaks ${got}, not protocol ${RPC_PROTOCOL}`),
      );
    }
    open = true;
    connection.listen();
  });
  writer.write(ownHello(version)).catch(finish);
  return {
    closed,
    async notify(method, params) {
      if (open) await connection.sendNotification(method, params ?? {}).catch(() => {});
    },
    async [Symbol.asyncDispose]() {
      finish(undefined);
    },
  };
}

function onCancel(token: CancellationToken, callback: () => void): Disposable {
  const subscription = token.onCancellationRequested(callback);
  return { [Symbol.dispose]: () => subscription.dispose() };
}
