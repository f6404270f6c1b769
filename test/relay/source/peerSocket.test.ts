import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import { widenPeerSocket } from '../../../relay/source/peerSocket.js';

const mebibyte = 2 ** 20;
/** Writes as much as it can to a socket, and says whenever it is asked how much that was. */
const writer = `
  let written = 0;
  const chunk = Buffer.alloc(65536);
  const socket = require('node:net').connect(process.argv[1], () => {
    const next = () => socket.write(chunk, () => {
      written += chunk.length;
      next();
    });
    next();
    process.stdin.on('data', () => console.log(written));
    console.log('connected');
    socket.on('error', () => process.exit());
  });
`;

it('lets another process write more ahead of who reads', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'vmmig-peer-'));
  const path = join(directory, 'socket');
  const server = createServer({ pauseOnConnect: true }).listen(path);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const child = spawn(process.execPath, ['-e', writer, path], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const written = async () => {
    child.stdin.write('?');
    return Number((await lines.next()).value);
  };
  try {
    await lines.next();
    const [socket] = await accepted;
    await expect.poll(written).toBeGreaterThan(0);
    const before = await written();
    expect(before).toBeLessThan(2 * mebibyte);
    widenPeerSocket(child.pid!, join(directory, 'other'), 16 * mebibyte);
    widenPeerSocket(child.pid!, path, 16 * mebibyte);
    // Who waits for room looks again when some is made.
    socket.once('data', () => socket.pause());
    socket.resume();
    await expect.poll(written, { timeout: 10_000 }).toBeGreaterThan(before + 4 * mebibyte);
    socket.destroy();
  } finally {
    child.kill('SIGKILL');
    server.close();
    await rm(directory, { recursive: true });
  }
});

it('does without where there is no such process', () => {
  expect(() => widenPeerSocket(2 ** 22 + 1, '/nowhere', mebibyte)).not.toThrow();
});
