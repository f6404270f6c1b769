/** How to reach a QMP monitor, and getting a connected byte stream to it. Knows nothing of what is said there. */
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { QmpConnectError } from './errors.js';

/** A unix socket, a TCP address, or a stream that is open already (an SSH channel, a socket pair). */
export type QmpTransportTarget =
  | { readonly path: string }
  | { readonly host: string; readonly port: number }
  | { readonly stream: Duplex };

/** Between two attempts while nothing listens yet. */
const RETRY_INTERVAL_MS = 25;

/** A starting QEMU creates its socket late (no file yet), and binds before it listens (refused). */
const NOT_YET = new Set(['ENOENT', 'ECONNREFUSED']);

/**
 * Opens the transport. A `{ stream }` is taken as it is.
 *
 * @param retry keep trying while nothing listens there
 * @param signal ends the attempts; its reason, an Error, becomes the cause
 * @throws {QmpConnectError}
 */
export async function openTransport(target: QmpTransportTarget, retry: boolean, signal: AbortSignal): Promise<Duplex> {
  if ('stream' in target) {
    if (target.stream.destroyed) throw new QmpConnectError('the stream to the QMP monitor is closed already');
    return target.stream;
  }
  const where = 'path' in target ? target.path : `${target.host}:${target.port}`;
  for (let notYet: unknown; ; ) {
    try {
      return await connectSocket(target, signal);
    } catch (error) {
      if (!retry || !isNotYet(error)) {
        const { message } = error as Error;
        const tried = notYet === undefined ? '' : ` (${(notYet as Error).message})`;
        throw new QmpConnectError(`cannot reach the QMP monitor at ${where}: ${message}${tried}`, error);
      }
      notYet = error;
    }
    // An abort during the pause shows in the next attempt.
    await delay(RETRY_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** Why no connection came about: there is no monitor at all, not one that is busy. */
export function nobodyListens(error: unknown): boolean {
  return error instanceof QmpConnectError && isNotYet(error.cause);
}

function isNotYet(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code !== undefined && NOT_YET.has(code);
}

function connectSocket(target: net.NetConnectOpts, signal: AbortSignal): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = net.connect(target);
    const settle = () => {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', onError);
      socket.off('connect', onConnect);
    };
    const onAbort = () => {
      settle();
      socket.on('error', () => undefined);
      socket.destroy();
      reject(signal.reason);
    };
    const onError = (error: Error) => {
      settle();
      reject(error);
    };
    const onConnect = () => {
      settle();
      socket.setNoDelay(true);
      resolve(socket);
    };
    signal.addEventListener('abort', onAbort);
    socket.once('error', onError);
    socket.once('connect', onConnect);
  });
}
