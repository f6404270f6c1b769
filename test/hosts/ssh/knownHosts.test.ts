import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HostKeyError } from '../../../hosts/errors.js';
import { openHostSession } from '../../../hosts/openHostSession.js';
import { generateKey, makeTempDir, startSshd, type TestSshd } from '../sshd.js';

let sshd: TestSshd;
let directory: string;
let otherKey: string;
beforeAll(async () => {
  sshd = await startSshd({ hostKeyTypes: ['ed25519', 'rsa', 'ecdsa'] });
  directory = makeTempDir('known-hosts');
  otherKey = readFileSync(`${generateKey(directory, 'other', 'ed25519')}.pub`, 'utf8')
    .split(' ')
    .slice(0, 2)
    .join(' ');
});
afterAll(async () => {
  await sshd?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

let files = 0;
function knownHosts(...lines: string[]): string {
  const file = join(directory, `known_hosts${files++}`);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return file;
}

const name = () => `[127.0.0.1]:${sshd.port}`;

async function accepts(file: string, config = ''): Promise<void> {
  await using session = await openHostSession(host(file, config));
  expect(session.bytesOnWire()).toBeGreaterThan(0);
}

async function refuses(file: string, config = ''): Promise<HostKeyError> {
  const acceptedBefore = sshd.log().split('Accepted').length;
  const outcome = await openHostSession(host(file, config)).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(HostKeyError);
  expect(outcome).toMatchObject({ code: 'VMMIG_SSH_HOST_KEY', host: 'hostA', retryable: false });
  expect(sshd.log().split('Accepted')).toHaveLength(acceptedBefore);
  return outcome as HostKeyError;
}

function host(file: string, config: string) {
  const sshConfig = join(directory, `config${files++}`);
  writeFileSync(sshConfig, `IdentityAgent none\n${config}\n`);
  return sshd.host({ knownHosts: file, sshConfig });
}

describe('a host key is accepted when known_hosts has it', () => {
  test.each(['ed25519', 'rsa', 'ecdsa'] as const)(
    'as the only one, of type %s, which is then what is asked for',
    async (type) => {
      await accepts(knownHosts(`${name()} ${sshd.hostKey(type)}`));
    },
  );

  test('among comments, blank and unreadable lines, and names of other hosts', async () => {
    const line = `other.example,${name()},192.0.2.1 ${sshd.hostKey('ed25519')} a comment`;
    await accepts(knownHosts('# comment', '', 'garbage', 'x ssh-ed25519 AAAA', '@marker a b c', line));
  });

  test('under a hashed name', async () => {
    const file = knownHosts(`${name()} ${sshd.hostKey('ed25519')}`);
    execFileSync('ssh-keygen', ['-q', '-H', '-f', file], { stdio: 'pipe' });
    expect(readFileSync(file, 'utf8')).toMatch(/^\|1\|/);
    await accepts(file);
  });

  test('under a pattern', async () => {
    await accepts(knownHosts(`[127.0.0.?]:* ${sshd.hostKey('ed25519')}`));
  });

  test('under the name without a port, when there is none with it', async () => {
    await accepts(knownHosts(`127.0.0.1 ${sshd.hostKey('ed25519')}`));
  });

  test('under HostKeyAlias', async () => {
    await accepts(knownHosts(`the-alias ${sshd.hostKey('ed25519')}`), 'HostKeyAlias The-Alias');
  });

  test('besides an old one', async () => {
    await accepts(knownHosts(`${name()} ${otherKey}`, `${name()} ${sshd.hostKey('ed25519')}`));
  });

  test('in the second of the files that ssh_config names', async () => {
    const sshConfig = join(directory, `config${files++}`);
    const second = knownHosts(`${name()} ${sshd.hostKey('rsa')}`);
    writeFileSync(sshConfig, `IdentityAgent none\nUserKnownHostsFile /no/such/file ${second}\n`);
    const { knownHosts: _, ...rest } = sshd.host({ sshConfig });
    await using session = await openHostSession(rest);
    expect(session.local).toBe(false);
  });
});

describe('a host key is refused', () => {
  test('when there is no entry, with its fingerprint and how to add it', async () => {
    const file = knownHosts();
    const error = await refuses(file);
    const printed = execFileSync('ssh-keygen', ['-lf', join(sshd.directory, 'host_ed25519.pub')], { encoding: 'utf8' });
    expect(error).toMatchObject({ problem: 'unknown', fingerprint: printed.split(' ')[1] });
    expect(error.message).toContain(`ssh-keyscan -p ${sshd.port} 127.0.0.1 >> ${file}`);
  });

  test('when there is no such file', async () => {
    expect((await refuses('/no/such/known_hosts')).problem).toBe('unknown');
  });

  test('when it has changed, naming the line and how to remove it', async () => {
    const file = knownHosts('# first', `${name()} ${otherKey}`);
    const error = await refuses(file);
    expect(error.problem).toBe('changed');
    expect(error.message).toContain(`${file}:2`);
    expect(error.message).toContain(`ssh-keygen -R '${name()}' -f ${file}`);
  });

  test.each(['no', 'off', 'accept-new', 'ask'])('with StrictHostKeyChecking %s, too', async (value) => {
    expect((await refuses(knownHosts(), `StrictHostKeyChecking ${value}`)).problem).toBe('unknown');
  });

  test('when a pattern excludes the host', async () => {
    expect((await refuses(knownHosts(`*,!${name()},!127.0.0.1 ${sshd.hostKey('ed25519')}`))).problem).toBe('unknown');
  });

  test('when it is known for another port only', async () => {
    expect((await refuses(knownHosts(`[127.0.0.1]:1 ${sshd.hostKey('ed25519')}`))).problem).toBe('unknown');
  });

  test('when it is known without a port, but another one with it', async () => {
    const file = knownHosts(`127.0.0.1 ${sshd.hostKey('ed25519')}`, `${name()} ${otherKey}`);
    expect((await refuses(file)).problem).toBe('changed');
  });

  test('when it is revoked, though known', async () => {
    const key = sshd.hostKey('ed25519');
    const error = await refuses(knownHosts(`${name()} ${key}`, `@revoked * ${key}`));
    expect(error.problem).toBe('revoked');
    expect(error.message).toContain('must not be trusted');
  });

  test('when it is revoked under the name without a port', async () => {
    const key = sshd.hostKey('ed25519');
    expect((await refuses(knownHosts(`${name()} ${key}`, `@revoked 127.0.0.1 ${key}`))).problem).toBe('revoked');
  });

  test('when only a certificate authority vouches for it, saying that this is not supported', async () => {
    const error = await refuses(knownHosts(`@cert-authority * ${otherKey}`));
    expect(error.problem).toBe('certificate');
    expect(error.message).toContain('does not support');
  });
});
