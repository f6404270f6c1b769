/** Both ends of a link's connections, made with the real handshake on loopback. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { LinkConnection, LinkCredentials } from '../../relay/link/connection.js';
import { encodeFrameHeader } from '../../relay/link/frames.js';
import { dial, listen } from '../../relay/link/handshake.js';

export const host = '127.0.0.1';

export function newCredentials(migrationId = 'test'): LinkCredentials {
  return { migrationId, key: randomBytes(32) };
}

export interface Pair extends AsyncDisposable {
  readonly dialed: LinkConnection[];
  readonly accepted: LinkConnection[];
}

export async function connectedPair(connections = 1): Promise<Pair> {
  const credentials = newCredentials();
  const listener = await listen(credentials, { host });
  const dialed = await dial({ host, port: listener.port }, credentials, { connections });
  const accepted = await listener.joined;
  return {
    dialed,
    accepted,
    async [Symbol.asyncDispose]() {
      for (const { tls } of [...dialed, ...accepted]) tls.on('error', () => {}).destroy();
    },
  };
}

export function frameBytes(type: number, sequence: number, payload: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(payload as string);
  return Buffer.concat([encodeFrameHeader(type, sequence, bytes.length), bytes]);
}

/** Resolves when the predicate holds; the test's own deadline is what ends it otherwise. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Whether anybody takes connections on a port. */
export async function isListening(port: number): Promise<boolean> {
  const { createConnection } = await import('node:net');
  const socket = createConnection({ host, port });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
