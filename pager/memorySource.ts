/** Where a guest's memory is read from while the guest may be running: a file, or QEMU's process. */

/** In bytes: of a file from its beginning, of a process its addresses. */
export interface FileRun {
  readonly offset: number;
  readonly lengthBytes: number;
}

export interface MemorySource {
  /**
   * Fills `into[start .. start + lengthBytes)`. While the guest runs, what is read may be torn.
   * @throws PagerError VMMIG_MEMORY_FILE_READ
   */
  read(offset: number, lengthBytes: number, into: Buffer, start?: number): void;
  /** Where there are pages; between the runs are holes, which read as zeros and cost nothing. */
  dataRuns(offset: number, lengthBytes: number, signal?: AbortSignal): AsyncGenerator<FileRun>;
  /** The first byte from `offset` on that is not known to be in a hole. Takes no time to speak of. */
  nextData(offset: number): number;
}
