/** Two ends of one connection. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export async function socketPair(): Promise<[Socket, Socket]> {
  const directory = await mkdtemp(join(tmpdir(), 'vmmig-pair-'));
  const server = createServer();
  try {
    server.listen(join(directory, 'socket'));
    await once(server, 'listening');
    const connected = once(server, 'connection');
    const near = createConnection({ path: join(directory, 'socket') });
    const [far] = (await connected) as [Socket];
    for (const socket of [near, far]) socket.on('error', () => {});
    return [near, far];
  } finally {
    server.close();
    await rm(directory, { recursive: true, force: true });
  }
}
