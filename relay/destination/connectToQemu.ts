import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { RelayError } from '../errors.js';

/** A QEMU that libvirt starts is known by its socket's file, which is there before it listens. */
const patienceMs = 1_000;
const retryMs = 10;

/** @throws RelayError VMMIG_RELAY_QEMU when nothing listens on `path` */
export async function connectToQemu(path: string, signal?: AbortSignal): Promise<Socket> {
  for (const deadline = Date.now() + patienceMs; ; await delay(retryMs)) {
    const socket = createConnection({ path });
    try {
      await once(socket, 'connect', signal ? { signal } : {});
      return socket;
    } catch (cause) {
      socket.destroy();
      signal?.throwIfAborted();
      if ((cause as NodeJS.ErrnoException).code === 'ECONNREFUSED' && Date.now() < deadline) continue;
      throw new RelayError('VMMIG_RELAY_QEMU', `the destination QEMU does not listen on ${path}`, cause);
    }
  }
}
