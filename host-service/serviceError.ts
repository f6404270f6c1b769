/** What the service itself finds wrong; errors of the modules below pass through it as they are. */
export class ServiceError extends Error {
  override readonly name = 'ServiceError';

  constructor(
    readonly code:
      | 'VMMIG_SERVICE_ORDER'
      | 'VMMIG_SERVICE_PARAMS'
      | 'VMMIG_SOURCE_MIGRATION'
      | 'VMMIG_SWITCH_REFUSED'
      | 'VMMIG_PULL_STOPPED'
      | 'VMMIG_TAKEOVER'
      | 'VMMIG_MEMORY_LOST'
      | 'VMMIG_QEMU_SILENT',
    message: string,
  ) {
    super(message);
  }
}
