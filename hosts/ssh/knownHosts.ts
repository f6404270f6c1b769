/**
 * known_hosts, as sshd(8) SSH_KNOWN_HOSTS FILE FORMAT describes it: which keys a host may present.
 *
 *     [@revoked|@cert-authority] patterns keytype base64 [comment]
 *
 * `patterns` is a comma-separated list with `*`, `?` and `!`, or one hashed name `|1|base64 salt|base64 HMAC-SHA1`.
 * A host on another port than 22 is `[host]:port`. There is no way to skip the check: a key that is not here is an error.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { HostError, HostKeyError, type HostKeyProblem } from '../errors.js';
import { matchesPattern } from './include.js';
import type { SshTarget } from './target.js';

const SSH_PORT = 22;

/** Host key algorithms by the key type that known_hosts names. RSA keys sign with SHA-2 only: SHA-1 is broken. */
const ALGORITHMS: Readonly<Record<string, readonly string[]>> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

interface Entry {
  marker: '' | '@revoked' | '@cert-authority';
  type: string;
  key: Buffer;
  /** `file:line`. */
  where: string;
}

/** What known_hosts says about one host. */
export class KnownHost {
  readonly #target: SshTarget;
  readonly #entries: readonly Entry[];

  constructor(target: SshTarget, entries: readonly Entry[]) {
    this.#target = target;
    this.#entries = entries;
  }

  /**
   * Host key algorithms in the order to offer them: first those whose keys are known, so that a host with several keys
   * presents one that can be checked.
   */
  algorithms(): string[] {
    const known = new Set(this.#entries.filter((entry) => entry.marker === '').map((entry) => entry.type));
    const types = Object.keys(ALGORITHMS).sort((a, b) => Number(known.has(b)) - Number(known.has(a)));
    return types.flatMap((type) => ALGORITHMS[type] ?? []);
  }

  /**
   * @param key the host's public key as it came in the key exchange.
   * @returns undefined when it is one of the host's known keys, else what is wrong.
   */
  check(key: Buffer): HostKeyError | undefined {
    const same = this.#entries.filter((entry) => entry.key.equals(key));
    const revoked = same.find((entry) => entry.marker === '@revoked');
    if (revoked) return this.#error('revoked', key, revoked.where);
    if (same.some((entry) => entry.marker === '')) return undefined;
    const other = this.#entries.find((entry) => entry.marker === '');
    if (other) return this.#error('changed', key, other.where);
    const authority = this.#entries.find((entry) => entry.marker === '@cert-authority');
    return authority ? this.#error('certificate', key, authority.where) : this.#error('unknown', key, '');
  }

  #error(problem: HostKeyProblem, key: Buffer, where: string): HostKeyError {
    const { name, hostName, port, user, knownHostsFiles } = this.#target;
    const file = knownHostsFiles[0] ?? '~/.ssh/known_hosts';
    const fingerprint = `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
    const presented = `${name} (${hostName}, port ${port}) presented the ${keyType(key)} key ${fingerprint}`;
    const option = port === SSH_PORT ? '' : `-p ${port} `;
    const compare =
      'compare the fingerprint with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` (or _ecdsa_, _rsa_) prints on the host';
    const add = `\`ssh-keyscan ${option}${hostName} >> ${file}\``;
    const messages: Record<HostKeyProblem, string> = {
      unknown:
        `the host key of ${name} is not known: ${presented}, and ${file} has no key of it. Log in once with ` +
        `\`ssh ${option}${user}@${hostName}\`, or ${compare} and add it: ${add}`,
      changed:
        `THE HOST KEY OF ${name} HAS CHANGED: ${presented}, which is not the one in ${where}. Someone may be between ` +
        `you and the host. If it was reinstalled, ${compare}, then ` +
        `\`ssh-keygen -R '${lookupNames(this.#target)[0]}' -f ${where.replace(/:\d+$/, '')}\` and ${add}`,
      revoked: `the host key of ${name} is revoked: ${presented}, and ${where} says that it must not be trusted`,
      certificate:
        `the host key of ${name} is not known: ${presented}, and ${where} vouches for it by a certificate authority, which ` +
        `vmmig does not support. To add the host's own key, ${compare}, then ${add}`,
    };
    return new HostKeyError(name, messages[problem], { problem, fingerprint });
  }
}

/**
 * Reads what is known about a host. Files that do not exist are empty; lines that cannot be read are skipped, as
 * OpenSSH does: they can only make a host unknown.
 * @throws HostError VMMIG_SSH_CONFIG when a file cannot be read.
 */
export async function readKnownHost(target: SshTarget): Promise<KnownHost> {
  const names = lookupNames(target);
  const byName = new Map<string, Entry[]>(names.map((name) => [name, []]));
  for (const file of target.knownHostsFiles) {
    const lines = (await read(target, file)).split(/\r?\n/);
    for (const [index, line] of lines.entries()) {
      const parsed = parseLine(line, `${file}:${index + 1}`);
      if (!parsed) continue;
      for (const name of names) {
        if (matchesHost(parsed.patterns, name)) byName.get(name)?.push(parsed.entry);
      }
    }
  }
  const [exact = [], withoutPort = []] = names.map((name) => byName.get(name) ?? []);
  // A key without a port counts for a host on another port only when there is none with it; a revocation always does.
  const known = exact.some((entry) => entry.marker === '');
  return new KnownHost(target, [...exact, ...withoutPort.filter(({ marker }) => !known || marker === '@revoked')]);
}

/** Names to look up, best first. */
function lookupNames({ hostName, hostKeyAlias, port }: SshTarget): string[] {
  if (hostKeyAlias !== undefined) return [hostKeyAlias.toLowerCase()];
  const name = hostName.toLowerCase();
  return port === SSH_PORT ? [name] : [`[${name}]:${port}`, name];
}

async function read(target: SshTarget, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw new HostError('VMMIG_SSH_CONFIG', target.name, `known_hosts cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function parseLine(line: string, where: string): { patterns: string; entry: Entry } | undefined {
  const fields = line.trim().split(/\s+/);
  if (line.trim() === '' || line.trim().startsWith('#')) return undefined;
  const marker = fields[0]?.startsWith('@') ? (fields.shift() ?? '') : '';
  const [patterns, type, base64] = fields;
  if (marker !== '' && marker !== '@revoked' && marker !== '@cert-authority') return undefined;
  if (patterns === undefined || type === undefined || base64 === undefined) return undefined;
  const key = Buffer.from(base64, 'base64');
  if (keyType(key) !== type) return undefined;
  return { patterns, entry: { marker, type, key, where } };
}

function matchesHost(patterns: string, name: string): boolean {
  if (patterns.startsWith('|')) return matchesHash(patterns, name);
  let matches = false;
  for (const pattern of patterns.toLowerCase().split(',')) {
    const negated = pattern.startsWith('!');
    if (!matchesPattern(negated ? pattern.slice(1) : pattern, name)) continue;
    if (negated) return false;
    matches = true;
  }
  return matches;
}

function matchesHash(hashed: string, name: string): boolean {
  const [, version, salt, hash] = hashed.split('|');
  if (version !== '1' || salt === undefined || hash === undefined) return false;
  const expected = Buffer.from(hash, 'base64');
  const actual = createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest();
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

/** The type that a public key in wire format (RFC 4253, 6.6) begins with. */
function keyType(key: Buffer): string {
  if (key.length < 4) return '';
  const length = key.readUInt32BE(0);
  return length <= 64 && length <= key.length - 4 ? key.toString('latin1', 4, 4 + length) : '';
}
