/** What can go wrong with a disk image. */
export type DiskErrorCode =
  /** The image cannot be opened. */
  | 'VMMIG_DISK_OPEN'
  /** No reader exists for this image format. */
  | 'VMMIG_DISK_FORMAT'
  /** qemu-nbd is needed to read the image, and is not installed. */
  | 'VMMIG_DISK_QEMU_NBD'
  /** The image is encrypted, and its key is not there. */
  | 'VMMIG_DISK_ENCRYPTED'
  /** The server that reads the image breaks the protocol, does not answer, or has ended. */
  | 'VMMIG_DISK_SERVER'
  /** The range lies (partly) beyond the end of the disk, or is no range at all. */
  | 'VMMIG_DISK_RANGE'
  /** The storage answered with an error, or with fewer bytes than the disk has. */
  | 'VMMIG_DISK_READ'
  /** The storage has not answered for long. Nothing is asked of it any more. */
  | 'VMMIG_DISK_SILENT'
  /** The reader was closed before the range was read. */
  | 'VMMIG_DISK_CLOSED';

export class DiskError extends Error {
  override readonly name = 'DiskError';

  constructor(
    readonly code: DiskErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
