import { linkSync, renameSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { connectToQemu } from '../../../relay/destination/connectToQemu.js';

async function listenOn(path: string): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ path }, resolve));
  return server;
}

it('waits for a QEMU whose socket has a file already, and not for one that has none', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'vmmig-connect-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const path = join(directory, 'incoming');
  await expect(connectToQemu(path)).rejects.toMatchObject({ code: 'VMMIG_RELAY_QEMU' });

  const gone = await listenOn(join(directory, 'gone'));
  linkSync(join(directory, 'gone'), path);
  await new Promise((resolve) => gone.close(resolve));
  const connecting = connectToQemu(path);
  connecting.catch(() => {});
  const signal = AbortSignal.timeout(100);
  await expect(connectToQemu(path, signal)).rejects.toMatchObject({ name: 'TimeoutError' });

  const server = await listenOn(join(directory, 'later'));
  onTestFinished(() => void server.close());
  renameSync(join(directory, 'later'), path);
  const socket = await connecting;
  expect(socket.readyState).toBe('open');
  socket.destroy();
});
