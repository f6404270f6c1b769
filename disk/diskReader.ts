/** What every reader of a disk image offers, whatever the format. */
export interface DiskReader extends AsyncDisposable {
  readonly path: string;
  /** The guest's view of the disk's size. Grows when a range beyond it is asked for and the image has grown. */
  readonly lengthBytes: number;
  /** Whether reads bypass the host's page cache altogether. */
  readonly direct: boolean;
  /**
   * Resolves with `lengthBytes` bytes at `offsetBytes`; no alignment is required. The bytes
   * are read into what `allocate` gives, a buffer of that length, once the reading begins; the buffer is the caller's.
   * Ranges are queued, merged with their neighbours and read in disk order. The queue itself has no limit: who asks
   * bounds how much is asked for.
   * @throws DiskError VMMIG_DISK_RANGE, VMMIG_DISK_READ, VMMIG_DISK_SILENT, VMMIG_DISK_CLOSED, or the reason of the aborted signal
   */
  read(offsetBytes: number, lengthBytes: number, allocate?: () => Buffer): Promise<Buffer>;
  /** What was read lately turned out to be out of date: the reader is to look at the image anew, where that helps. */
  doubt?(): void;
  /** What the storage was asked (`reads`, `readBytes`) for how many calls of `read` (`requests`). */
  readonly counters: { readonly readBytes: number; readonly reads: number; readonly requests: number };
}

export interface OpenDiskOptions {
  /** Reads in flight at a time. Default 4. */
  readonly parallelReads?: number;
  /** Longest single read in bytes. Default 1 MiB. */
  readonly maxReadBytes?: number;
  /** How long the storage may take for one read before it is given up. Default a minute. */
  readonly readTimeoutMs?: number;
  /** Bypass the page cache: insist (true), don't (false), or where the file system allows it ('auto', the default). */
  readonly direct?: boolean | 'auto';
  /** Opens the image with the first read, if it is one that a program has to be started for; `lengthBytes` is 0 until then. */
  readonly lazy?: boolean;
  /** Where such a program's socket is made. Default: the system's directory for temporary files. */
  readonly runDirectory?: string;
  /** Aborting rejects all that is queued; the reader still has to be disposed of. */
  readonly signal?: AbortSignal;
}
