/** What can go wrong with guest memory that is kept in a file. */
export type PagerErrorCode =
  /** The file cannot be opened, or is none. */
  | 'VMMIG_MEMORY_FILE_OPEN'
  /** The file is shorter than the guest's memory, or does not let itself be read. */
  | 'VMMIG_MEMORY_FILE_READ'
  /** The file's memory cannot be given back. */
  | 'VMMIG_MEMORY_FILE_RELEASE'
  /** The head of QEMU's stream is not one that a destination can be given. */
  | 'VMMIG_MEMORY_FILE_HEAD';

export class PagerError extends Error {
  override readonly name = 'PagerError';

  constructor(
    readonly code: PagerErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
