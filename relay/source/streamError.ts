import { RelayError } from '../errors.js';

/** What is told of memory that was put away and cannot be sent, because it does not come back. */
export function deliveryError(cause: unknown): RelayError {
  if (cause instanceof RelayError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new RelayError('VMMIG_RELAY_STREAM', `the guest's memory cannot be sent: ${message}`, cause);
}

/** What is told of a migration stream that cannot be relayed, whoever has found out. */
export function streamError(cause: unknown): RelayError {
  if (cause instanceof RelayError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new RelayError('VMMIG_RELAY_STREAM', `QEMU's migration stream cannot be relayed: ${message}`, cause);
}
