/** Keys, configuration and servers of the lab's SSH: made anew for each lab, checked strictly on both sides. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { type HostName, hostNames, labPaths, networks } from '../settings.js';
import { hostEnvironment, memberPid } from './members.js';

/** Makes the keys of the client and of both servers, and what each side must know of the other. */
export async function writeSshKeys(): Promise<void> {
  const directory = labPaths.ssh();
  await mkdir(directory, { mode: 0o700 });
  const knownHosts: string[] = [];
  for (const name of ['client', ...hostNames]) {
    const path = join(directory, name);
    await execa('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', `vmmig lab ${name}`, '-f', path]);
    const [type, key] = (await readFile(`${path}.pub`, 'utf8')).split(' ');
    if (name !== 'client') knownHosts.push(`${name},${networks[name as HostName].address} ${type} ${key}\n`);
  }
  await writeFile(join(directory, 'known_hosts'), knownHosts.join(''));
  for (const host of hostNames) await writeFile(sshdConfigPath(host), sshdConfig(host));
}

/** The configuration for clients outside (they must enter the host's network first) and inside the hosts. */
export async function writeSshClientConfig(): Promise<void> {
  await writeFile(labPaths.sshConfig(), hostNames.map((host) => clientConfig(host, true)).join('\n'));
  await writeFile(insideConfigPath(), hostNames.map((host) => clientConfig(host, false)).join('\n'));
}

/** Mounted over the client configuration inside the hosts. */
export function insideConfigPath(): string {
  return join(labPaths.ssh(), 'ssh_config.inside');
}

export function sshdConfigPath(host: HostName): string {
  return join(labPaths.ssh(), `sshd_config.${host}`);
}

function clientConfig(host: HostName, outside: boolean): string {
  const { address } = networks[host];
  const lines = [
    `Host ${host}`,
    `  HostName ${address}`,
    '  User root',
    `  IdentityFile ${join(labPaths.ssh(), 'client')}`,
    '  IdentitiesOnly yes',
    `  UserKnownHostsFile ${join(labPaths.ssh(), 'known_hosts')}`,
    '  StrictHostKeyChecking yes',
  ];
  if (outside) {
    lines.push(`  ProxyCommand nsenter --net=/proc/${memberPid(host)}/ns/net socat - TCP:${address}:22`);
  }
  return `${lines.join('\n')}\n`;
}

function sshdConfig(host: HostName): string {
  const environment = Object.entries(hostEnvironment(host)).map(([name, value]) => `${name}=${value}`);
  return `${[
    `ListenAddress ${networks[host].address}`,
    `HostKey ${join(labPaths.ssh(), host)}`,
    `AuthorizedKeysFile ${join(labPaths.ssh(), 'client.pub')}`,
    'PermitRootLogin prohibit-password',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'UsePAM no',
    // The lab directory may be below one that everybody can write to.
    'StrictModes no',
    'PidFile none',
    'MaxStartups 100',
    'MaxSessions 100',
    'Subsystem sftp internal-sftp',
    `SetEnv ${environment.join(' ')}`,
  ].join('\n')}\n`;
}
