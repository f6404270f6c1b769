/** What can go wrong with a guest's QEMU. */
export type HypervisorErrorCode =
  /** The guest's QEMU, or what it says about itself, cannot be read. */
  | 'VMMIG_INSPECT'
  /** The destination's QEMU did not start. */
  | 'VMMIG_DESTINATION_START'
  /** The destination's QEMU did not take the migration stream. */
  | 'VMMIG_DESTINATION_LOAD'
  /** The destination's QEMU, whose migration stream broke, does not take another one. */
  | 'VMMIG_DESTINATION_RECOVER'
  /** The source's migration could not be started, cancelled or brought to an end. */
  | 'VMMIG_SOURCE_MIGRATION'
  /** The guest cannot be let run again. */
  | 'VMMIG_RESUME'
  /** A QEMU process did not end. */
  | 'VMMIG_PROCESS_END';

export class HypervisorError extends Error {
  override readonly name = 'HypervisorError';

  constructor(
    readonly code: HypervisorErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
