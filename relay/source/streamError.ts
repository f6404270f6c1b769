/** What is told of the guest's memory, and of QEMU's stream of it, when they go no further, whoever has found out. */
import { RelayError } from '../errors.js';
import { StoreError } from '../store/errors.js';

/** Of memory that was put away and cannot be sent, because it does not come back. */
export function deliveryError(cause: unknown): RelayError {
  return told(cause, "the guest's memory cannot be sent");
}

/** Of a migration stream that cannot be relayed. */
export function streamError(cause: unknown): RelayError {
  return told(cause, "QEMU's migration stream cannot be relayed");
}

/** The page store's reasons keep their codes: what to do differs. */
function told(cause: unknown, what: string): RelayError {
  if (cause instanceof RelayError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  const code = cause instanceof StoreError ? cause.code : 'VMMIG_RELAY_STREAM';
  return new RelayError(code, `${what}: ${message}`, cause);
}
