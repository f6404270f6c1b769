/** SSH from an open byte stream to a logged-in client: host key, then user keys. Says in its errors what to do. */
import ssh2, { type AnyAuthMethod, type AuthHandlerMiddleware, type BaseAgent } from 'ssh2';
import { HostError, type HostKeyError, messageOf } from '../errors.js';
import { saveRoundTrips } from './fewerRoundTrips.js';
import { findIdentities, type Identities, OneKeyAgent } from './identities.js';
import { readKnownHost } from './knownHosts.js';
import type { SshTarget } from './target.js';
import type { Transport } from './transport.js';

export interface Login {
  client: ssh2.Client;
  /** Resolves when the connection is over, with what was wrong with it, if anything was. */
  ended: Promise<unknown>;
}

/**
 * @throws HostError as `SshSession.connect`; the signal's reason when aborted. The transport is the caller's to close.
 */
export async function logIn(target: SshTarget, transport: Transport, signal: AbortSignal): Promise<Login> {
  let failure: unknown;
  transport.stream.on('error', (error) => {
    failure ??= error;
  });
  // While these are read, the connection is being made.
  const [knownHost, identities] = await Promise.all([readKnownHost(target), findIdentities(target)]);
  signal.throwIfAborted();
  const toError = (error: unknown) => loginError(target, transport, error, identities);
  if (failure) throw toError(failure);
  const client = new ssh2.Client();
  client.on('error', (error) => {
    failure ??= error;
  });
  const ended = new Promise<unknown>((resolve) => client.once('close', () => resolve(failure)));
  let hostKeyError: HostKeyError | undefined;
  await new Promise<void>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    const settle = (outcome: () => void) => {
      signal.removeEventListener('abort', abort);
      outcome();
    };
    signal.addEventListener('abort', abort, { once: true });
    client.once('ready', () => settle(resolve));
    client.on('error', (error: Error & { level?: string }) => {
      // A key that the agent would not sign with is not the last one.
      if (error.level !== 'agent') settle(() => reject(hostKeyError ?? toError(error)));
    });
    void ended.then((error) =>
      settle(() => reject(hostKeyError ?? toError(error ?? new Error('the connection was closed')))),
    );
    client.connect({
      sock: transport.stream,
      username: target.user,
      algorithms: { serverHostKey: knownHost.algorithms() as ssh2.ServerHostKeyAlgorithm[] },
      hostVerifier: (key: Buffer): boolean => {
        hostKeyError = knownHost.check(key);
        return hostKeyError === undefined;
      },
      authHandler: offer(target.user, identities) as AuthHandlerMiddleware,
      keepaliveInterval: target.keepalive.intervalMs,
      keepaliveCountMax: target.keepalive.maxUnanswered,
      readyTimeout: 0, // the signal has the deadline
    });
    saveRoundTrips(client, identities.list);
  });
  failure = undefined; // an agent's refusal, say, is not why it ends later
  return { client, ended };
}

/** Offers one key after the other; `false` gives up. No probe with method `none`: it would cost a round trip. */
function offer(username: string, { list }: Identities) {
  let next = 0;
  return (methodsLeft: readonly string[] | null): AnyAuthMethod | false => {
    const identity = list[next++];
    if (!identity || (methodsLeft && !methodsLeft.includes('publickey'))) return false;
    const { key, agent } = identity;
    if (!agent) return { type: 'publickey', username, key };
    return { type: 'agent', username, agent: new OneKeyAgent({ ...identity, agent }) as unknown as BaseAgent };
  };
}

type SshFailure = Error & { level?: string; code?: unknown };

function loginError(target: SshTarget, transport: Transport, error: unknown, identities: Identities): HostError {
  if (error instanceof HostError) return error;
  const { level, code } = error as SshFailure;
  const { name, user, hostName, port } = target;
  const where = `${name} (${hostName}, port ${port})`;
  const cause = { cause: error };
  // sshd ends the connection itself after MaxAuthTries refusals.
  if (level === 'client-authentication' || /too many authentication failures/i.test(messageOf(error))) {
    const offered = identities.list.map(({ label }) => label).join(', ') || 'none';
    const problems = identities.problems.map((problem) => `; ${problem}`).join('');
    const message =
      `${where} refused to let ${user} log in. Keys offered: ${offered}${problems}. ` +
      `Check with \`ssh -p ${port} ${user}@${hostName}\`; vmmig logs in with keys only`;
    return new HostError('VMMIG_SSH_AUTH', name, message, cause);
  }
  if (level === 'handshake') {
    return new HostError(
      'VMMIG_SSH_PROTOCOL',
      name,
      `${where} and vmmig cannot agree on SSH: ${messageOf(error)}`,
      cause,
    );
  }
  const said = transport.diagnosis();
  const why = said === '' ? `${code ? `${code}: ` : ''}${messageOf(error)}` : said;
  return new HostError('VMMIG_SSH_UNREACHABLE', name, `${where} cannot be reached: ${why}`, cause);
}
