/**
 * The keys to log in with, best first, so that the first one offered is nearly always right (each refused one costs a
 * round trip, and hosts give up after a few): those that were asked for, then the agent's others, then the usual files.
 */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import ssh2, { type BaseAgent, type ParsedKey, type SignCallback, type SigningRequestOptions } from 'ssh2';
import { messageOf } from '../errors.js';
import type { SshTarget } from './target.js';

/** In the order of what is likeliest today; OpenSSH tries the same, among types that are not used any more. */
const USUAL_FILES = ['id_ed25519', 'id_ecdsa', 'id_rsa'];
const OPENSSH_KEY_MAGIC = Buffer.from('openssh-key-v1\0', 'latin1');

export interface Identity {
  /** File name, or what the agent calls it: for messages. */
  label: string;
  key: ParsedKey;
  /** The agent that holds the private key; undefined when `key` is private itself. */
  agent?: BaseAgent;
  /** Whether it was asked for by name. */
  asked: boolean;
}

export interface Identities {
  list: Identity[];
  /** Keys that could not be used, and why: for the message when no other one fits. */
  problems: string[];
}

export async function findIdentities(target: SshTarget): Promise<Identities> {
  const problems: string[] = [];
  const asked = target.identityFiles.length > 0;
  const files = asked ? target.identityFiles : USUAL_FILES.map((file) => join(homedir(), '.ssh', file));
  const [inAgent, inFiles] = await Promise.all([
    listAgent(target.agent, problems),
    Promise.all(files.map((file) => readIdentityFile(file, asked))),
  ]);
  const fromFiles: Identity[] = [];
  for (const { file, publicKey, privateKey, problem } of inFiles) {
    const held = publicKey && inAgent.find(({ key }) => key.getPublicSSH().equals(publicKey));
    if (held) fromFiles.push({ ...held, label: `${file} (in the agent)`, asked });
    else if (privateKey) fromFiles.push({ label: file, key: privateKey, asked });
    else if (problem !== undefined) problems.push(problem);
  }
  const others = inAgent.filter(({ key }) => !fromFiles.some((identity) => samePublicKey(identity.key, key)));
  if (target.identitiesOnly) return { list: fromFiles, problems };
  return { list: asked ? [...fromFiles, ...others] : [...others, ...fromFiles], problems };
}

async function listAgent(path: string | undefined, problems: string[]): Promise<Identity[]> {
  if (path === undefined) return [];
  const agent = ssh2.createAgent(path);
  return await new Promise((resolve) => {
    agent.getIdentities((error, keys) => {
      if (error) problems.push(`the agent at ${path} does not answer: ${messageOf(error)}`);
      // OpenSSH's agent gives parsed keys, whatever the type allows.
      const parsed = (keys ?? []) as ParsedKey[];
      resolve(parsed.map((key) => ({ label: `${key.comment || key.type} (in the agent)`, key, agent, asked: false })));
    });
  });
}

interface IdentityFile {
  file: string;
  /** In wire format. */
  publicKey?: Buffer;
  privateKey?: ParsedKey;
  problem?: string;
}

async function readIdentityFile(file: string, asked: boolean): Promise<IdentityFile> {
  const publicKey = await readPublicKey(`${file}.pub`);
  let content: Buffer;
  try {
    content = await readFile(file);
  } catch (error) {
    // With the key in an agent or a token, the .pub file alone says which one to use.
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT' && !asked;
    return {
      file,
      ...(publicKey && { publicKey }),
      ...(!missing && { problem: `${file} cannot be read: ${messageOf(error)}` }),
    };
  }
  const key = ssh2.utils.parseKey(content);
  if (!(key instanceof Error)) {
    if (key.isPrivateKey()) return { file, publicKey: key.getPublicSSH(), privateKey: key };
    return {
      file,
      publicKey: key.getPublicSSH(),
      problem: `${file} is a public key that no agent has the private key of`,
    };
  }
  const encrypted = /encrypted/i.test(key.message);
  const problem = encrypted
    ? `${file} is encrypted, and vmmig does not ask for passphrases: add it to the agent with \`ssh-add ${file}\``
    : `${file} cannot be used: ${key.message}`;
  const inClear = publicKey ?? publicPartOf(content);
  return { file, problem, ...(inClear && { publicKey: inClear }) };
}

async function readPublicKey(file: string): Promise<Buffer | undefined> {
  const content = await readFile(file).catch(() => undefined);
  if (!content) return undefined;
  const key = ssh2.utils.parseKey(content);
  return key instanceof Error ? undefined : key.getPublicSSH();
}

/** OpenSSH's own key files have their public part in clear even when encrypted (PROTOCOL.key). */
function publicPartOf(content: Buffer): Buffer | undefined {
  const body = /-----BEGIN OPENSSH PRIVATE KEY-----([^-]*)-----END/.exec(content.toString('latin1'))?.[1];
  const data = Buffer.from(body ?? '', 'base64');
  if (!data.subarray(0, OPENSSH_KEY_MAGIC.length).equals(OPENSSH_KEY_MAGIC)) return undefined;
  let offset = OPENSSH_KEY_MAGIC.length;
  const readString = () => {
    const length = data.readUInt32BE(offset);
    const start = offset + 4;
    offset = start + length;
    return data.subarray(start, offset);
  };
  try {
    for (const _ of ['cipher', 'key derivation', 'its options']) readString();
    offset += 4; // the number of keys, always 1
    return readString();
  } catch {
    return undefined; // truncated
  }
}

function samePublicKey(a: ParsedKey, b: ParsedKey): boolean {
  return a.getPublicSSH().equals(b.getPublicSSH());
}

/** An agent that shows only one of its keys, so that keys are tried in our order. */
export class OneKeyAgent extends ssh2.BaseAgent<ParsedKey> {
  readonly #identity: Identity & { agent: BaseAgent };

  constructor(identity: Identity & { agent: BaseAgent }) {
    super();
    this.#identity = identity;
  }

  getIdentities(callback: (error?: Error | null, keys?: ParsedKey[]) => void): void {
    callback(null, [this.#identity.key]);
  }

  override sign(
    key: ParsedKey,
    data: Buffer,
    options: SigningRequestOptions | SignCallback,
    done?: SignCallback,
  ): void {
    if (typeof options === 'function') this.#identity.agent.sign(key, data, options);
    else this.#identity.agent.sign(key, data, options, done);
  }
}
