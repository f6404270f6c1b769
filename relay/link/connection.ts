/**
 * One authenticated, encrypted connection of the link: TLS 1.3 with a key that was made for this
 * migration and handed to both relays over SSH. There are no certificates to trust or to expire.
 */
import { createConnection, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket, connect as tlsConnect } from 'node:tls';
import { RelayError } from '../errors.js';

/** The session's secret, and the identity under which TLS asks for it. */
export interface LinkCredentials {
  readonly migrationId: string;
  /** 32 bytes. */
  readonly key: Buffer;
}

/** With `PSK` alone OpenSSL prefers ChaCha20, which is slower wherever the processor has AES. */
const ciphers = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:PSK';
const protocol = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ciphers } as const;

let context: SecureContext | undefined;

/** Made once, and of no certificates, not even the usual ones: they take longer to load than the handshake lasts. */
function secureContext(): SecureContext {
  context ??= createSecureContext({ ...protocol, ca: [] });
  return context;
}

/** The plain socket below counts what crosses the network, handshake and record headers included. */
export interface LinkConnection {
  readonly tls: TLSSocket;
  readonly socket: Socket;
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export async function openConnection(
  endpoint: Endpoint,
  credentials: LinkCredentials,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<LinkConnection> {
  const socket = createConnection({ host: endpoint.host, port: endpoint.port, noDelay: true });
  const abort = () => socket.destroy();
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  socket.once('close', () => signal?.removeEventListener('abort', abort));
  const where = `${endpoint.host}:${endpoint.port}`;
  try {
    await settled(socket, 'connect', timeoutMs);
  } catch (cause) {
    socket.destroy();
    throw new RelayError('VMMIG_LINK_CONNECT', `could not connect to the destination relay at ${where}`, cause);
  }
  const tls = tlsConnect({
    socket,
    secureContext: secureContext(),
    ...protocol,
    pskCallback: () => ({ psk: credentials.key, identity: credentials.migrationId }),
    checkServerIdentity: () => undefined,
  });
  tolerateErrors(socket, tls);
  try {
    await settled(tls, 'secureConnect', timeoutMs);
  } catch (cause) {
    tls.destroy();
    if (cause instanceof TimeoutError)
      throw new RelayError('VMMIG_LINK_CONNECT', `the relay at ${where} did not answer the TLS handshake`, cause);
    throw new RelayError('VMMIG_LINK_AUTH', `the relay at ${where} does not have this migration's key`, cause);
  }
  return { tls, socket };
}

/** The accepting side of {@link openConnection}. */
export async function acceptConnection(
  socket: Socket,
  credentials: LinkCredentials,
  timeoutMs: number,
): Promise<LinkConnection> {
  socket.setNoDelay(true);
  const tls = new TLSSocket(socket, {
    isServer: true,
    secureContext: secureContext(),
    ...protocol,
    pskCallback: (_socket: TLSSocket, identity: string) =>
      identity === credentials.migrationId ? credentials.key : null,
  } as ConstructorParameters<typeof TLSSocket>[1]);
  tolerateErrors(socket, tls);
  try {
    await settled(tls, 'secure', timeoutMs);
  } catch (cause) {
    tls.destroy();
    if (cause instanceof TimeoutError)
      throw new RelayError('VMMIG_LINK_CONNECT', 'a peer connected and did not finish the TLS handshake', cause);
    throw new RelayError('VMMIG_LINK_AUTH', "a peer without this migration's key tried to connect", cause);
  }
  return { tls, socket };
}

/**
 * A connection can break while nobody looks after it, as one that has greeted and waits for the others to. That must not
 * end the process: whoever takes it over finds it closed.
 */
function tolerateErrors(socket: Socket, tls: TLSSocket): void {
  socket.on('error', () => {});
  tls.on('error', () => {});
}

/** A peer that has closed one connection has so long to close the others. */
export const closeLimitMs = 1000;

/** Resolves when a connection that was ended is closed. A peer that does not close its side in time is closed on. */
export function hungUp(tls: TLSSocket): Promise<void> {
  if (tls.closed) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => tls.destroy(), closeLimitMs);
    tls.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Says nothing about whether the peer has the key. */
class TimeoutError extends Error {}

/** Resolves with the event, rejects with the socket's error, its end, or after the deadline. */
function settled(socket: Socket, event: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (error?: Error) => {
      clearTimeout(timer);
      socket.off(event, onEvent).off('error', finish).off('close', onClose);
      if (error === undefined) resolve();
      else {
        socket.on('error', () => {}); // what follows the first error is of no interest
        reject(error);
      }
    };
    const onEvent = () => finish();
    const onClose = () => finish(new Error('the connection was closed'));
    const timer = setTimeout(() => finish(new TimeoutError(`no answer in ${timeoutMs} ms`)), timeoutMs);
    socket.on(event, onEvent).on('error', finish).on('close', onClose);
  });
}
