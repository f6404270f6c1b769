/**
 * The errors of `hosts/`: what could go wrong between this process and another host, and what to do about it.
 * Where the guest is and which phase failed is the policy's to say (`migrate/`), not known here.
 */

export type HostErrorCode =
  /** No TCP connection, or the proxy or jump host did not give one. */
  | 'VMMIG_SSH_UNREACHABLE'
  /** The host refused every key that could be offered. */
  | 'VMMIG_SSH_AUTH'
  /** The host's key is unknown, changed or revoked: see {@link HostKeyError}. */
  | 'VMMIG_SSH_HOST_KEY'
  /** An established connection ended or fell silent. */
  | 'VMMIG_SSH_LOST'
  /** The two ends have no SSH algorithm in common, or what answers does not speak SSH. */
  | 'VMMIG_SSH_PROTOCOL'
  /** ssh_config, known_hosts, an identity file or an SSH destination cannot be used as written. */
  | 'VMMIG_SSH_CONFIG'
  /** A process could not be started on the host, or said more than can be kept. */
  | 'VMMIG_HOST_COMMAND'
  /** A process or request took longer than its deadline. */
  | 'VMMIG_HOST_TIMEOUT'
  /** The host has no `vmmig` command (under the name the inventory gives). */
  | 'VMMIG_HOST_NO_VMMIG'
  /** What answered is not vmmig, or speaks another version of its protocol. */
  | 'VMMIG_HOST_INCOMPATIBLE'
  /** The vmmig service on the host ended while it was needed. */
  | 'VMMIG_HOST_SERVICE_ENDED';

/** Whether trying the same again can help without anyone changing anything. */
const RETRYABLE: ReadonlySet<HostErrorCode> = new Set([
  'VMMIG_SSH_UNREACHABLE',
  'VMMIG_SSH_LOST',
  'VMMIG_HOST_TIMEOUT',
  'VMMIG_HOST_SERVICE_ENDED',
]);

/** A host could not be reached, logged in to, or made to do what was asked. */
export class HostError extends Error {
  override readonly name: string = 'HostError';
  readonly code: HostErrorCode;
  /** The host's name in the inventory, or its SSH destination. */
  readonly host: string;
  readonly retryable: boolean;

  constructor(code: HostErrorCode, host: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.host = host;
    this.retryable = RETRYABLE.has(code);
  }
}

/** Why a host key was not accepted. `unknown`: no entry at all; `changed`: entries, but with other keys. */
export type HostKeyProblem = 'unknown' | 'changed' | 'revoked' | 'certificate';

/** The host could not be proven to be the one that known_hosts describes. Nothing was sent to it. */
export class HostKeyError extends HostError {
  override readonly name = 'HostKeyError';
  readonly problem: HostKeyProblem;
  /** Of the key that the host presented: `SHA256:…`, as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;

  constructor(host: string, message: string, details: { problem: HostKeyProblem; fingerprint: string }) {
    super('VMMIG_SSH_HOST_KEY', host, message);
    this.problem = details.problem;
    this.fingerprint = details.fingerprint;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message : String(error);
}
