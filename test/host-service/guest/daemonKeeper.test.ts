import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { pong } from '../../../hypervisor/index.js';

const ownerPath = fileURLToPath(new URL('keeperOwner.ts', import.meta.url));
const word = 'let it run';

let directory: string;
let server: Server;
let owner: ChildProcess;
let daemon: Socket;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-keeper-'));
  server = createServer().listen(join(directory, 'daemon'));
  const connected = once(server, 'connection');
  await writeFile(join(directory, 'word'), word);
  const paths = ['daemon', 'decision', 'word'].map((name) => join(directory, name));
  // libvirt's own test driver has a domain "test", which runs: the keeper need not stay for it.
  const args = ['--import', 'tsx', ownerPath, ...paths, 'test:///default'];
  owner = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  [daemon] = (await connected) as [Socket];
  await once(owner.stdout!, 'data');
});

afterEach(async () => {
  owner.kill('SIGKILL');
  daemon.destroy();
  server.close();
  await rm(directory, { recursive: true, force: true });
});

/** What the daemon hears until the connection closes. */
async function heard(): Promise<string> {
  let said = '';
  daemon.setEncoding('latin1').on('data', (text: string) => {
    said += text;
  });
  await once(daemon, 'close');
  return said;
}

describe('The word to run the guest', { timeout: 60_000 }, () => {
  test('is passed on once when its owner says so, and the connection ends with its owner’s', async () => {
    const said = heard();
    owner.stdin!.write('run\n');
    await once(daemon, 'data');
    owner.stdin!.end('done\n');
    expect(await said).toBe(word);
  });

  test('is passed on when its owner died after it had been decided, and signs of life follow', async () => {
    await writeFile(join(directory, 'decision'), 'run\n');
    const said = heard();
    owner.kill('SIGKILL');
    expect(await said).toBe(word + pong().toString('latin1'));
  });

  test.each([
    ['nothing had been decided', null],
    ['it had been decided that the guest does not run', 'end\n'],
  ])('is not passed on when its owner died and %s', async (_, decision) => {
    if (decision !== null) await writeFile(join(directory, 'decision'), decision);
    const said = heard();
    owner.kill('SIGKILL');
    expect(await said).toBe('');
  });

  test('is not passed on when the guest was given up', async () => {
    await writeFile(join(directory, 'decision'), 'run\n');
    const said = heard();
    owner.stdin!.end('done\n');
    expect(await said).toBe('');
  });

  test('is passed on once also when its owner dies after having said so', async () => {
    await writeFile(join(directory, 'decision'), 'run\n');
    const said = heard();
    owner.stdin!.write('run\n');
    await once(daemon, 'data');
    owner.kill('SIGKILL');
    expect(await said).toBe(word + pong().toString('latin1'));
  });
});
