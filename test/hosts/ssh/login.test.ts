import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { HostError } from '../../../hosts/errors.js';
import type { InventoryHost } from '../../../hosts/inventory.js';
import { openHostSession } from '../../../hosts/openHostSession.js';
import { freePort, generateKey, makeHost, makeTempDir, startAgent, startSshd, type TestSshd, user } from '../sshd.js';
import { startDelayProxy } from './delayProxy.js';

let sshd: TestSshd;
let directory: string;
beforeAll(async () => {
  sshd = await startSshd();
  directory = makeTempDir('login');
});
afterAll(async () => {
  await sshd?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});
afterEach(() => vi.unstubAllEnvs());

let files = 0;
function write(content: string): string {
  const file = join(directory, `file${files++}`);
  writeFileSync(file, content);
  return file;
}

async function logsIn(host: InventoryHost): Promise<void> {
  await using session = await openHostSession(host);
  expect((await session.exec(['echo', 'hello'])).stdout).toBe('hello\n');
}

async function failure(host: InventoryHost): Promise<HostError> {
  const outcome = await openHostSession(host).catch((error: unknown) => error);
  if (outcome instanceof HostError) return outcome;
  throw new Error(`expected a HostError, got ${outcome}`);
}

describe('keys', () => {
  test('a key file that the inventory names is enough', async () => {
    await logsIn(sshd.host());
  });

  test.each(['rsa', 'ecdsa'])('%s keys work', async (type) => {
    const key = generateKey(directory, `user_${type}`, type);
    const authorized = join(sshd.directory, 'authorized_keys');
    writeFileSync(authorized, readFileSync(authorized, 'utf8') + readFileSync(`${key}.pub`, 'utf8'));
    await logsIn(sshd.host({ identityFile: key }));
  });

  test('a key that the host does not know is VMMIG_SSH_AUTH, and says what was offered', async () => {
    const stranger = generateKey(directory, 'stranger', 'ed25519');
    const error = await failure(
      sshd.host({ identityFile: stranger, sshConfig: write('IdentityAgent none\nIdentitiesOnly yes\n') }),
    );
    expect(error).toMatchObject({ code: 'VMMIG_SSH_AUTH', host: 'hostA', retryable: false });
    expect(error.message).toContain(`Keys offered: ${stranger}`);
    expect(error.cause).toBeInstanceOf(Error);
  });

  test('the second key is tried when the first is refused', async () => {
    const stranger = generateKey(directory, 'stranger2', 'ed25519');
    await logsIn(
      sshd.host({ identityFile: stranger, sshConfig: write(`IdentityAgent none\nIdentityFile ${sshd.userKey}\n`) }),
    );
  });

  test('more keys than the host puts up with is VMMIG_SSH_AUTH', async () => {
    const keys = Array.from({ length: 8 }, (_, index) => generateKey(directory, `many${index}`, 'ed25519'));
    const config = write(`IdentityAgent none\n${keys.map((key) => `IdentityFile ${key}\n`).join('')}`);
    const error = await failure(sshd.host({ identityFile: keys[0] ?? '', sshConfig: config }));
    expect(error.code).toBe('VMMIG_SSH_AUTH');
  });

  test('an encrypted key that no agent holds says to add it to the agent', async () => {
    const encrypted = generateKey(directory, 'encrypted', 'ed25519', 'secret');
    const error = await failure(sshd.host({ identityFile: encrypted }));
    expect(error.code).toBe('VMMIG_SSH_AUTH');
    expect(error.message).toContain(`\`ssh-add ${encrypted}\``);
  });

  test('a file that is no key, and one that is not there, are named in the message', async () => {
    const garbage = write('not a key');
    const error = await failure(
      sshd.host({ identityFile: garbage, sshConfig: write('IdentityAgent none\nIdentityFile /no/such/key\n') }),
    );
    expect(error.code).toBe('VMMIG_SSH_AUTH');
    expect(error.message).toMatch(/file\d+ cannot be used: .*\/no\/such\/key cannot be read/s);
  });
});

describe('an agent', () => {
  test('logs in with a key that only it has', async () => {
    await using agent = await startAgent();
    agent.add(sshd.userKey);
    vi.stubEnv('SSH_AUTH_SOCK', agent.socket);
    const { identityFile: _, ...host } = sshd.host({ sshConfig: write('') });
    await logsIn(host);
    await logsIn({ ...host, sshConfig: write(`IdentityAgent ${agent.socket}\n`) });
  });

  test('is asked first for the key that was named, though it holds more than the host puts up with', async () => {
    await using agent = await startAgent();
    for (let index = 0; index < 7; index++) agent.add(generateKey(directory, `other${index}`, 'ed25519'));
    agent.add(sshd.userKey);
    const publicOnly = join(directory, 'public_only');
    copyFileSync(`${sshd.userKey}.pub`, `${publicOnly}.pub`);
    const failedBefore = sshd.log().split('Failed publickey').length;
    await logsIn(sshd.host({ identityFile: publicOnly, sshConfig: write(`IdentityAgent ${agent.socket}\n`) }));
    expect(sshd.log().split('Failed publickey')).toHaveLength(failedBefore);
  });

  test('signs for an encrypted key that it holds', async () => {
    await using agent = await startAgent();
    const key = generateKey(directory, 'held', 'ed25519');
    const authorized = join(sshd.directory, 'authorized_keys');
    writeFileSync(authorized, readFileSync(authorized, 'utf8') + readFileSync(`${key}.pub`, 'utf8'));
    agent.add(key);
    execFileSync('ssh-keygen', ['-q', '-p', '-P', '', '-N', 'secret', '-f', key]);
    rmSync(`${key}.pub`); // its public part is in the file, in clear
    await logsIn(
      sshd.host({ identityFile: key, sshConfig: write(`IdentityAgent ${agent.socket}\nIdentitiesOnly yes\n`) }),
    );
  });

  test('is not asked for other keys with IdentitiesOnly', async () => {
    await using agent = await startAgent();
    agent.add(sshd.userKey);
    const stranger = generateKey(directory, 'stranger3', 'ed25519');
    const config = write(`IdentityAgent ${agent.socket}\nIdentitiesOnly yes\n`);
    expect((await failure(sshd.host({ identityFile: stranger, sshConfig: config }))).code).toBe('VMMIG_SSH_AUTH');
    await logsIn(sshd.host({ identityFile: stranger, sshConfig: write(`IdentityAgent ${agent.socket}\n`) }));
  });

  test('that is not there is only a problem when no other key fits', async () => {
    const config = write('IdentityAgent /no/such/agent\n');
    await logsIn(sshd.host({ sshConfig: config }));
    const stranger = generateKey(directory, 'stranger4', 'ed25519');
    const error = await failure(sshd.host({ sshConfig: config, identityFile: stranger }));
    expect(error.message).toContain('the agent at /no/such/agent does not answer');
  });
});

describe('ssh_config', () => {
  test('gives host name, port, user, key and known_hosts of an alias', async () => {
    const config = write(
      `Host elsewhere\n  Port 1\nHost vm-*\n  HostName 127.0.0.1\n  Port ${sshd.port}\n  User ${user}\n` +
        `  IdentityFile "${sshd.userKey}"\n  UserKnownHostsFile ${sshd.knownHosts}\n  IdentityAgent none\n`,
    );
    await logsIn({ ...makeHost('hostA', 'vm-7'), sshConfig: config });
  });

  test('may be spread over files with Include', async () => {
    const inner = write(`Host alias\n  HostName 127.0.0.1\n  Port ${sshd.port}\n  IdentityAgent none\nUser ${user}\n`);
    const config = write(`Include ${inner} ${join(directory, 'none-such-*.conf')}\nIdentityFile ${sshd.userKey}\n`);
    await logsIn({ ...makeHost('hostA', 'alias'), sshConfig: config, knownHosts: sshd.knownHosts });
  });

  test('that includes itself is VMMIG_SSH_CONFIG', async () => {
    const config = join(directory, 'circle');
    writeFileSync(config, `Include ${config}\n`);
    expect(await failure(sshd.host({ sshConfig: config }))).toMatchObject({
      code: 'VMMIG_SSH_CONFIG',
      retryable: false,
    });
  });

  test('that is asked for and not there is VMMIG_SSH_CONFIG', async () => {
    const error = await failure(sshd.host({ sshConfig: '/no/such/config' }));
    expect(error.code).toBe('VMMIG_SSH_CONFIG');
    expect(error.message).toContain('/no/such/config');
  });

  test('ProxyCommand is what the connection runs through, and its bytes count', async () => {
    const viaNode = write(
      `IdentityAgent none\nProxyCommand ${process.execPath} -e "const s=require('net').connect(%p,'%h');process.stdin.pipe(s).pipe(process.stdout)"\n`,
    );
    await using session = await openHostSession(sshd.host({ sshConfig: viaNode }));
    const before = session.bytesOnWire();
    expect((await session.exec(['cat'], { input: Buffer.alloc(1_000_000, 'x') })).stdout).toHaveLength(1_000_000);
    expect(session.bytesOnWire() - before).toBeGreaterThan(2_000_000);
  });

  test('a ProxyCommand that fails is VMMIG_SSH_UNREACHABLE with what it said', async () => {
    const error = await failure(sshd.host({ sshConfig: write('ProxyCommand echo no way through >&2; exit 1\n') }));
    expect(error).toMatchObject({ code: 'VMMIG_SSH_UNREACHABLE', retryable: true });
    expect(error.message).toContain('no way through');
  });

  test('ProxyJump hops over a second sshd, whose host key is checked as well', async () => {
    await using jump = await startSshd();
    writeFileSync(join(jump.directory, 'authorized_keys'), readFileSync(`${sshd.userKey}.pub`));
    const both = write(readFileSync(jump.knownHosts, 'utf8') + readFileSync(sshd.knownHosts, 'utf8'));
    const config = (knownHosts: string) =>
      write(
        `Host target\n  HostName 127.0.0.1\n  Port ${sshd.port}\n  ProxyJump bastion\n` +
          `Host bastion\n  HostName 127.0.0.1\n  Port ${jump.port}\n` +
          `Host *\n  User ${user}\n  IdentityAgent none\n  IdentityFile ${sshd.userKey}\n  UserKnownHostsFile ${knownHosts}\n`,
      );
    await using session = await openHostSession({ ...makeHost('hostA', 'target'), sshConfig: config(both) });
    expect((await session.exec(['echo', 'there'])).stdout).toBe('there\n');
    expect(session.bytesOnWire()).toBeGreaterThan(2_000);
    expect(jump.log()).toContain('Accepted publickey');

    const error = await failure({ ...makeHost('hostA', 'target'), sshConfig: config(sshd.knownHosts) });
    expect(error).toMatchObject({ code: 'VMMIG_SSH_HOST_KEY', problem: 'unknown' });
    expect(error.message).toContain('bastion');

    await jump.stop();
    expect(await session.closed).toMatchObject({ code: 'VMMIG_SSH_LOST', host: 'hostA' });
  });

  test('a jump host that cannot reach the host is VMMIG_SSH_UNREACHABLE', async () => {
    const config = write(
      `Host target\n  HostName 127.0.0.1\n  Port ${await freePort()}\n  ProxyJump ${user}@127.0.0.1:${sshd.port}\n` +
        `Host *\n  IdentityAgent none\n  IdentityFile ${sshd.userKey}\n  UserKnownHostsFile ${sshd.knownHosts}\n`,
    );
    const error = await failure({ ...makeHost('hostA', 'target'), sshConfig: config });
    expect(error).toMatchObject({ code: 'VMMIG_SSH_UNREACHABLE', host: 'hostA' });
  });
});

describe('a host that does not answer as it should', () => {
  test('is VMMIG_SSH_UNREACHABLE when nothing listens', async () => {
    const error = await failure(makeHost('hostA', `127.0.0.1:${await freePort()}`));
    expect(error).toMatchObject({ code: 'VMMIG_SSH_UNREACHABLE', retryable: true });
    expect(error.message).toContain('ECONNREFUSED');
    expect(error.cause).toBeInstanceOf(Error);
  });

  test('is VMMIG_SSH_UNREACHABLE when its name does not exist', async () => {
    expect((await failure(makeHost('hostA', 'no-such-host.invalid'))).code).toBe('VMMIG_SSH_UNREACHABLE');
  });

  describe('but accepts connections', () => {
    const sockets: Socket[] = [];
    const say = async (text: string) => {
      const server = createServer((socket) => {
        sockets.push(socket);
        socket.on('error', () => {});
        socket.resume();
        socket.write(text);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('no port');
      const close = () => {
        for (const socket of sockets.splice(0)) socket.destroy();
        server.close();
      };
      return { port: address.port, close };
    };

    test('and stays silent is VMMIG_SSH_UNREACHABLE at the deadline, and can be aborted before', async () => {
      const { port, close } = await say('');
      try {
        const host = { ...makeHost('hostA', `127.0.0.1:${port}`), connectTimeoutMs: 200 };
        const error = await failure(host);
        expect(error.code).toBe('VMMIG_SSH_UNREACHABLE');
        expect(error.message).toContain('within 200 ms');
        const reason = new Error('enough');
        const abort = new AbortController();
        const opening = openHostSession({ ...host, connectTimeoutMs: 60_000 }, { signal: abort.signal });
        setTimeout(() => abort.abort(reason), 50);
        await expect(opening).rejects.toBe(reason);
        await delay(50);
        expect(sockets.every((socket) => socket.readableEnded || socket.destroyed)).toBe(true);
      } finally {
        close();
      }
    });

    test('and is no SSH server is a typed error', async () => {
      const { port, close } = await say('HTTP/1.1 400 Bad Request\r\n\r\n'.repeat(2000));
      try {
        expect((await failure(makeHost('hostA', `127.0.0.1:${port}`))).code).toMatch(
          /^VMMIG_SSH_(PROTOCOL|UNREACHABLE)$/,
        );
      } finally {
        close();
      }
    });
  });

  test('is noticed by keepalives when the link dies without a word', async () => {
    await using proxy = await startDelayProxy(sshd.port, 2);
    const config = write(
      `IdentityAgent none\nHostKeyAlias [127.0.0.1]:${sshd.port}\nServerAliveInterval 1\nServerAliveCountMax 2\n`,
    );
    const session = await openHostSession({
      ...sshd.host({ sshConfig: config }),
      ssh: `${user}@127.0.0.1:${proxy.port}`,
    });
    const running = session.exec(['sleep', '10']);
    running.catch(() => {});
    proxy.freeze();
    const frozenAt = Date.now();
    await expect(running).rejects.toMatchObject({ code: 'VMMIG_SSH_LOST' });
    expect(Date.now() - frozenAt).toBeLessThan(6_000);
    await session[Symbol.asyncDispose]();
  });
});

test('logging in takes three round trips after TCP, and starting a process two more', async () => {
  const roundTripMs = 200;
  await using proxy = await startDelayProxy(sshd.port, roundTripMs);
  const config = write(`IdentityAgent none\nHostKeyAlias [127.0.0.1]:${sshd.port}\n`);
  const host = { ...sshd.host({ sshConfig: config }), ssh: `${user}@127.0.0.1:${proxy.port}` };
  const started = performance.now();
  await using session = await openHostSession(host);
  const loggedIn = performance.now();
  const process = await session.spawn(['cat']);
  const spawned = performance.now();
  process.stdin.end();
  expect(Math.floor((loggedIn - started) / roundTripMs)).toBe(3);
  expect(Math.floor((spawned - loggedIn) / roundTripMs)).toBe(2);
});
