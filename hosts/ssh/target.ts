/**
 * Everything needed to log in to a host, from its inventory entry and ssh_config(5): the directives that decide where
 * to connect, through what, as whom, with which keys, and which host keys to believe. Others are ignored.
 */
import { readFile } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import SSHConfig from 'ssh-config';
import { HostError, messageOf } from '../errors.js';
import type { InventoryHost } from '../inventory/types.js';
import { parseDestination, type SshDestination } from './destination.js';
import { readSshConfig } from './include.js';

const DEFAULT_CONNECT_TIMEOUT_MS = 15_000;
/** A silent host is given up after three unanswered probes: most of what is done on it has deadlines of its own to keep. */
const KEEPALIVE = { intervalMs: 5_000, silenceLimitMs: 15_000 };
const SSH_PORT = 22;

export interface SshTarget {
  /** The host's name in the inventory: for messages. */
  name: string;
  hostName: string;
  port: number;
  user: string;
  /** Looked up in known_hosts instead of host name and port. */
  hostKeyAlias?: string;
  knownHostsFiles: string[];
  /** Private keys that were asked for, in order. Empty: the usual ones in ~/.ssh. */
  identityFiles: string[];
  /** Whether the agent's other keys are not to be tried. */
  identitiesOnly: boolean;
  /** Path of the agent's socket. */
  agent?: string;
  /** Shell command whose stdio is the connection. */
  proxyCommand?: string;
  /** Hosts to hop over, first to last. */
  proxyJump: SshDestination[];
  connectTimeoutMs: number;
  /** ssh_config's ServerAlive… where that is stricter. */
  keepalive: { intervalMs: number; maxUnanswered: number };
  /** ssh_config to resolve jump hosts with. */
  sshConfig?: string;
}

type TargetSource = Pick<
  InventoryHost,
  'name' | 'ssh' | 'sshConfig' | 'identityFile' | 'knownHosts' | 'connectTimeoutMs'
>;

/**
 * @param silenceLimitMs - how long an established session may be silent
 * @throws HostError VMMIG_SSH_CONFIG when ssh_config cannot be read or says something that cannot be used.
 */
export async function resolveTarget(host: TargetSource, silenceLimitMs = KEEPALIVE.silenceLimitMs): Promise<SshTarget> {
  const unusable = (message: string, cause?: unknown) =>
    new HostError('VMMIG_SSH_CONFIG', host.name, `cannot tell how to reach ${host.name}: ${message}`, { cause });
  const destination = parseDestination(host.ssh);
  if (!destination) throw unusable(`"${host.ssh}" is not [user@]host[:port]`);
  let directives: Directives;
  try {
    directives = await computeDirectives(destination, host.sshConfig);
  } catch (error) {
    throw unusable(messageOf(error), error);
  }
  const port = destination.port ?? Number(directives.one('port') ?? SSH_PORT);
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw unusable(`Port is "${directives.one('port')}" in ssh_config`);
  const localUser = userInfo().username;
  const user = destination.user ?? directives.one('user') ?? localUser;
  const hostName = (directives.one('hostname') ?? destination.host)
    .replaceAll('%h', destination.host)
    .replaceAll('%%', '%');
  const tokens: Record<string, string> = {
    '%': '%',
    d: homedir(),
    h: hostName,
    k: directives.one('hostkeyalias') ?? destination.host,
    n: destination.host,
    p: String(port),
    r: user,
    u: localUser,
  };
  const expand = (value: string) => value.replace(/%(.)/g, (token, letter: string) => tokens[letter] ?? token);
  const path = (value: string) =>
    expand(value)
      .replace(/^~(?=\/|$)/, homedir())
      .replace(/\$\{(\w+)\}/g, (_, variable: string) => process.env[variable] ?? '');
  const jump = directives.one('proxyjump');
  const proxyJump =
    jump === undefined || jump === 'none' ? [] : jump.split(',').map((hop) => parseDestination(hop.trim()));
  if (!proxyJump.every((hop) => hop !== undefined)) throw unusable(`ProxyJump is "${jump}" in ssh_config`);
  const proxyCommand = directives.one('proxycommand');
  const usesCommand = proxyJump.length === 0 && proxyCommand !== undefined && proxyCommand !== 'none';
  const agent = agentSocket(directives.one('identityagent'), path);
  const hostKeyAlias = directives.one('hostkeyalias');
  const timeoutSeconds = Number(directives.one('connecttimeout'));
  return {
    name: host.name,
    hostName,
    port,
    user,
    ...(hostKeyAlias !== undefined && { hostKeyAlias }),
    knownHostsFiles: host.knownHosts ? [host.knownHosts] : knownHostsFiles(directives).map(path),
    identityFiles: [
      ...(host.identityFile ? [host.identityFile] : []),
      ...directives
        .all('identityfile')
        .filter((file) => file !== 'none')
        .map(path),
    ],
    identitiesOnly: directives.one('identitiesonly') === 'yes',
    ...(agent !== undefined && { agent }),
    ...(usesCommand && { proxyCommand: expand(proxyCommand) }),
    proxyJump,
    connectTimeoutMs:
      host.connectTimeoutMs ?? (timeoutSeconds > 0 ? timeoutSeconds * 1000 : DEFAULT_CONNECT_TIMEOUT_MS),
    keepalive: {
      intervalMs: stricter(Number(directives.one('serveraliveinterval')) * 1000, KEEPALIVE.intervalMs),
      maxUnanswered: stricter(
        Number(directives.one('serveralivecountmax')),
        Math.ceil(silenceLimitMs / KEEPALIVE.intervalMs),
      ),
    },
    ...(host.sshConfig !== undefined && { sshConfig: host.sshConfig }),
  };
}

function stricter(configured: number, ours: number): number {
  return configured > 0 ? Math.min(configured, ours) : ours;
}

class Directives {
  readonly #values: Readonly<Record<string, string | string[]>>;

  constructor(values: Readonly<Record<string, string | string[]>>) {
    this.#values = values;
  }

  all(directive: string): string[] {
    const value = this.#values[directive];
    return value === undefined ? [] : Array.isArray(value) ? value : [value];
  }

  one(directive: string): string | undefined {
    return this.all(directive)[0];
  }
}

/** As `ssh -F`: a file that was asked for replaces both the user's and the system's. */
async function computeDirectives(destination: SshDestination, asked: string | undefined): Promise<Directives> {
  const userDirectory = join(homedir(), '.ssh');
  const texts: (string | undefined)[] = [];
  if (asked !== undefined) {
    await readFile(asked); // says why when it is not there
    texts.push(await readSshConfig(asked, dirname(asked)));
  } else {
    texts.push(await readSshConfig(join(userDirectory, 'config'), userDirectory));
    texts.push(await readSshConfig('/etc/ssh/ssh_config', '/etc/ssh'));
  }
  const config = SSHConfig.parse(texts.filter((text) => text !== undefined).join('\nMatch all\n'));
  const query = { Host: destination.host, ...(destination.user !== undefined && { User: destination.user }) };
  return new Directives(config.compute(query, { ignoreCase: true }));
}

function knownHostsFiles(directives: Directives): string[] {
  const words = (directive: string) => directives.all(directive).flatMap((value) => value.split(/\s+/));
  const orDefault = (files: string[], ...defaults: string[]) => (files.length > 0 ? files : defaults);
  return [
    ...orDefault(words('userknownhostsfile'), '~/.ssh/known_hosts', '~/.ssh/known_hosts2'),
    ...orDefault(words('globalknownhostsfile'), '/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2'),
  ].filter((file) => file !== 'none');
}

function agentSocket(directive: string | undefined, path: (value: string) => string): string | undefined {
  if (directive === 'none') return undefined;
  if (directive === undefined || directive === 'SSH_AUTH_SOCK') return process.env.SSH_AUTH_SOCK || undefined;
  return directive.startsWith('$') && !directive.startsWith('${') ? process.env[directive.slice(1)] : path(directive);
}
