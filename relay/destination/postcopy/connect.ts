import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { RelayError } from '../../errors.js';

/** @throws RelayError VMMIG_RELAY_QEMU when nothing listens on `path` */
export async function connectToQemu(path: string, signal: AbortSignal | undefined): Promise<Socket> {
  const socket = createConnection({ path });
  try {
    await once(socket, 'connect', signal ? { signal } : {});
    return socket;
  } catch (cause) {
    socket.destroy();
    signal?.throwIfAborted();
    throw new RelayError('VMMIG_RELAY_QEMU', `the destination QEMU does not listen on ${path}`, cause);
  }
}
