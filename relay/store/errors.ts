/** Why the page store could not keep, or give back, what it was given. */

export type StoreErrorCode =
  /** The limit is too small to work with. */
  | 'VMMIG_STORE_LIMIT'
  /** A page that the guest does not have. */
  | 'VMMIG_STORE_RANGE'
  /** The spill file cannot be created. */
  | 'VMMIG_STORE_SPILL_OPEN'
  /** The file system of the spill file is full. */
  | 'VMMIG_STORE_DISK_FULL'
  /** The spill file cannot be written or read. */
  | 'VMMIG_STORE_SPILL_IO'
  /** What was put away did not come back as it was. */
  | 'VMMIG_STORE_CORRUPT'
  /** The destination lacks a page that it had acknowledged, and whose bytes are gone. */
  | 'VMMIG_STORE_LOST';

export class StoreError extends Error {
  override readonly name = 'StoreError';

  constructor(
    readonly code: StoreErrorCode,
    message: string,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? {} : { cause });
  }
}
