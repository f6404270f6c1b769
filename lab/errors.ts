/** What can go wrong in the lab. The message says what to do; `code` is for programs. */

export type LabErrorCode =
  | 'VMMIG_LAB_UNSUPPORTED'
  | 'VMMIG_LAB_COMMAND'
  | 'VMMIG_LAB_BUSY'
  | 'VMMIG_LAB_DOWN'
  | 'VMMIG_LAB_GUEST'
  | 'VMMIG_LAB_TIMEOUT';

export class LabError extends Error {
  override readonly name = 'LabError';

  constructor(
    readonly code: LabErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}
