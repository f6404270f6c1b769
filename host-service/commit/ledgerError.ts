export type LedgerErrorCode =
  /** A record that others rely on could not be put on disk: what was to follow it must not be done. */
  | 'VMMIG_LEDGER_WRITE'
  /** What lies in the place of a record is not one. */
  | 'VMMIG_LEDGER_INVALID';

export class LedgerError extends Error {
  override readonly name = 'LedgerError';

  constructor(
    readonly code: LedgerErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
