/** Why a relay gave up. Codes are listed in docs/errors.md. */
import type { StoreErrorCode } from './store/errors.js';

export type RelayErrorCode =
  | 'VMMIG_LINK_CONNECT'
  | 'VMMIG_LINK_AUTH'
  | 'VMMIG_LINK_INCOMPATIBLE'
  | 'VMMIG_LINK_PROTOCOL'
  | 'VMMIG_LINK_LOST'
  | 'VMMIG_RELAY_STREAM'
  | 'VMMIG_RELAY_QEMU'
  | 'VMMIG_RELAY_VERIFY'
  | 'VMMIG_RELAY_STORAGE'
  | 'VMMIG_RELAY_ABORTED'
  | StoreErrorCode;

export class RelayError extends Error {
  override readonly name = 'RelayError';

  constructor(
    readonly code: RelayErrorCode,
    message: string,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? {} : { cause });
  }
}
