/** A real sshd on a loopback port, with keys of its own in a temporary directory, and real agents. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type InventoryHost, parseInventory } from '../../hosts/inventory.js';

export const user = userInfo().username;

export interface TestSshd extends AsyncDisposable {
  readonly port: number;
  readonly directory: string;
  /** A private key that may log in. */
  readonly userKey: string;
  /** known_hosts with the server's ed25519 key under `[127.0.0.1]:port`. */
  readonly knownHosts: string;
  /** Lines of `type base64` of the server's keys. */
  hostKey(type: 'ed25519' | 'rsa' | 'ecdsa'): string;
  /** An inventory host that logs in here; fields may be replaced. */
  host(fields?: Partial<InventoryHost>): InventoryHost;
  /** The processes that serve connections, as opposed to the one that listens. */
  sessionPids(): number[];
  /** sshd's log. */
  log(): string;
  stop(): Promise<void>;
}

export interface SshdOptions {
  hostKeyTypes?: ('ed25519' | 'rsa' | 'ecdsa')[];
  /** Lines added to sshd_config. */
  config?: string[];
}

export async function startSshd({ hostKeyTypes = ['ed25519'], config = [] }: SshdOptions = {}): Promise<TestSshd> {
  const directory = makeTempDir('sshd');
  const userKey = generateKey(directory, 'user', 'ed25519');
  // /root may be writable by a group, which StrictModes would object to: the file is elsewhere anyway.
  writeFileSync(join(directory, 'authorized_keys'), readFileSync(`${userKey}.pub`));
  for (const type of hostKeyTypes) generateKey(directory, `host_${type}`, type);
  const port = await freePort();
  writeFileSync(
    join(directory, 'sshd_config'),
    [
      `ListenAddress 127.0.0.1:${port}`,
      ...hostKeyTypes.map((type) => `HostKey ${join(directory, `host_${type}`)}`),
      `AuthorizedKeysFile ${join(directory, 'authorized_keys')}`,
      `PidFile ${join(directory, 'pid')}`,
      'PermitRootLogin yes',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'UsePAM no',
      'StrictModes no',
      'LogLevel VERBOSE',
      ...config,
      '',
    ].join('\n'),
  );
  // Where sshd, as root, is separated from its privileges; a system that never ran one does not have it.
  if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', join(directory, 'sshd_config')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  sshd.stderr.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  try {
    await untilListening(port, sshd, () => log);
  } catch (error) {
    await kill(sshd);
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  const hostKey = (type: string) =>
    readFileSync(join(directory, `host_${type}.pub`), 'utf8')
      .split(' ')
      .slice(0, 2)
      .join(' ');
  const knownHosts = join(directory, 'known_hosts');
  writeFileSync(knownHosts, `[127.0.0.1]:${port} ${hostKey(hostKeyTypes[0] ?? 'ed25519')}\n`);
  const emptyConfig = join(directory, 'ssh_config');
  writeFileSync(emptyConfig, 'IdentityAgent none\n');
  const sessionPids = () => childrenOf(sshd.pid ?? -1);
  const stop = async () => {
    const sessions = sessionPids();
    await kill(sshd);
    for (const pid of sessions) killTree(pid);
  };
  return {
    port,
    directory,
    userKey,
    knownHosts,
    hostKey,
    host: (fields = {}) => ({
      ...makeHost('hostA', `${user}@127.0.0.1:${port}`),
      sshConfig: emptyConfig,
      identityFile: userKey,
      knownHosts,
      ...fields,
    }),
    sessionPids,
    log: () => log,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** An inventory host with its defaults. */
export function makeHost(name: string, ssh: string): InventoryHost {
  const host = parseInventory(JSON.stringify({ hosts: { [name]: { ssh } } }), '/inventory.yaml').hosts.get(name);
  if (!host) throw new Error('no host');
  return host;
}

export interface TestAgent extends AsyncDisposable {
  readonly socket: string;
  add(key: string, ...options: string[]): void;
}

export async function startAgent(): Promise<TestAgent> {
  const directory = makeTempDir('agent');
  const socket = join(directory, 'socket');
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(agent.stdout, 'data');
  return {
    socket,
    add: (key, ...options) => {
      execFileSync('ssh-add', ['-q', ...options, key], {
        env: { ...process.env, SSH_AUTH_SOCK: socket },
        stdio: 'pipe',
      });
    },
    async [Symbol.asyncDispose]() {
      await kill(agent);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** @returns the path of the private key. */
export function generateKey(directory: string, name: string, type: string, passphrase = ''): string {
  const path = join(directory, name);
  const bits = type === 'rsa' ? ['-b', '2048'] : [];
  execFileSync('ssh-keygen', ['-q', '-t', type, ...bits, '-N', passphrase, '-C', name, '-f', path]);
  return path;
}

export function makeTempDir(name: string): string {
  return mkdtempSync(join(tmpdir(), `vmmig-test-${name}-`));
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Waits until a condition holds; fails the test when it does not come to. */
export async function eventually(condition: () => boolean, timeoutMs = 5_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`did not come true within ${timeoutMs} ms: ${condition}`);
    await delay(20);
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie has ended, too; its parent is just slow to notice.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export function killTree(pid: number): void {
  for (const child of childrenOf(pid)) killTree(child);
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it has ended by itself
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        // pid (comm) state ppid; the comm may contain anything.
        return (
          Number(
            readFileSync(`/proc/${pid}/stat`, 'utf8')
              .replace(/^.*\) \S+ /s, '')
              .split(' ')[0],
          ) === parent
        );
      } catch {
        return false;
      }
    });
}

async function untilListening(port: number, sshd: ChildProcess, log: () => string): Promise<void> {
  for (let attempt = 0; attempt < 250; attempt++) {
    if (sshd.exitCode !== null) break;
    const socket = connect(port, '127.0.0.1');
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (connected) return;
    await delay(20);
  }
  throw new Error(`sshd does not listen:\n${log()}`);
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
