/**
 * Saves three of ssh2's round trips at login, which are 120 ms on a 40 ms link. ssh2 1.x:
 *
 *     C: SERVICE_REQUEST            S: SERVICE_ACCEPT
 *     C: USERAUTH_REQUEST, no sig   S: PK_OK               (would you take this key?)
 *     C: USERAUTH_REQUEST, signed   S: SUCCESS
 *
 * RFC 4252 lets a client send the signed request at once, and sshd takes packets in order, so that the service need
 * not have been accepted yet:
 *
 *     C: SERVICE_REQUEST, USERAUTH_REQUEST, signed    S: SERVICE_ACCEPT, SUCCESS
 *
 * After that, OpenSSH says which other keys the host has, and ssh2 has it prove that. Nobody here listens to what comes of it,
 * and while sshd waits for its answer to be acknowledged, it sends nothing else: not that a channel is open either.
 *
 * ssh2 has no option for either. This reaches into the (pinned) version's internals, checks that they look as expected,
 * and leaves ssh2 alone if they don't: logging in is slower then, nothing else.
 */
import type { Client, ParsedKey } from 'ssh2';
import type { Identity } from './identities.js';

type SignCallback = (data: Buffer, done: (signature: Buffer) => void) => void;

interface Protocol {
  service(name: string): void;
  authPK(user: string, key: ParsedKey, algorithm?: string, sign?: SignCallback): void;
  _handlers: {
    SERVICE_ACCEPT(protocol: Protocol, name: string): void;
    GLOBAL_REQUEST(protocol: Protocol, name: string, wantReply: boolean, data: unknown): void;
  };
}

const RSA_HASHES: Readonly<Record<string, string>> = { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' };

/** To be called right after `client.connect()`. */
export function saveRoundTrips(client: Client, identities: readonly Identity[]): void {
  const protocol = (client as unknown as { _protocol?: Partial<Protocol> })._protocol;
  if (!isExpected(protocol)) return;
  signAtOnce(protocol, identities);
  ignoreOtherKeys(protocol);
  // Which hash an RSA key must sign with is known only from what the server says after the key exchange.
  if (identities[0] && identities[0].key.type !== 'ssh-rsa') requestAtOnce(protocol);
}

function isExpected(protocol: Partial<Protocol> | undefined): protocol is Protocol {
  return (
    typeof protocol?.service === 'function' &&
    typeof protocol.authPK === 'function' &&
    typeof protocol._handlers?.SERVICE_ACCEPT === 'function' &&
    typeof protocol._handlers.GLOBAL_REQUEST === 'function'
  );
}

function signAtOnce(protocol: Protocol, identities: readonly Identity[]): void {
  const authPK = protocol.authPK.bind(protocol);
  protocol.authPK = (user, key, algorithm, sign) => {
    const identity = sign ? undefined : identities.find((candidate) => candidate.key === key);
    // An agent may ask its user for every signature: not for a key that the host may not even want.
    const worthwhile = identity && (!identity.agent || identity.asked || identities.length === 1);
    if (!worthwhile) return authPK(user, key, algorithm, sign);
    const hash = RSA_HASHES[algorithm ?? ''];
    authPK(user, key, algorithm, (data, done) => {
      if (identity.agent) {
        identity.agent.sign(key, data, hash ? { hash: hash as 'sha256' } : {}, (error, signature) => {
          if (error || !signature) authPK(user, key, algorithm);
          else done(signature as Buffer);
        });
        return;
      }
      const signature = key.sign(data, hash) as Buffer | Error;
      if (signature instanceof Error) authPK(user, key, algorithm);
      else done(signature);
    });
  };
}

function requestAtOnce(protocol: Protocol): void {
  const service = protocol.service.bind(protocol);
  const onAccept = protocol._handlers.SERVICE_ACCEPT;
  protocol.service = (name) => {
    service(name);
    protocol._handlers.SERVICE_ACCEPT = () => {};
    // After ssh2 is done with the packet that ended the key exchange, and with what came along with it.
    queueMicrotask(() => onAccept(protocol, name));
  };
}

function ignoreOtherKeys({ _handlers }: Protocol): void {
  const onRequest = _handlers.GLOBAL_REQUEST;
  _handlers.GLOBAL_REQUEST = (protocol, name, wantReply, data) => {
    if (name !== 'hostkeys-00@openssh.com' || wantReply) onRequest(protocol, name, wantReply, data);
  };
}
