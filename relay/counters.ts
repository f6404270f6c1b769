/** What a relay counts. All of it only grows. */
export interface RelayCounters {
  /** Pages of guest memory in all; 0 before the stream has named its blocks. */
  totalPages: number;
  readonly pages: {
    /** Page records in QEMU's stream; a page that was dirtied again is seen again. */
    seen: number;
    zero: number;
    /** Sent as references, those included that later had to be sent as bytes. */
    teleported: number;
    sent: number;
    /** Pages that the destination put back from its disk. */
    restored: number;
    /** Referenced pages that the destination's disk did not hold, sent as bytes after all. */
    mismatched: number;
    /** Asked for by the guest at the destination while it waited for them. */
    faulted: number;
  };
  readonly bytes: {
    /** Between QEMU and this relay. */
    stream: number;
    /** Read from the disk image. */
    restored: number;
  };
}

export function newCounters(): RelayCounters {
  return {
    totalPages: 0,
    pages: { seen: 0, zero: 0, teleported: 0, sent: 0, restored: 0, mismatched: 0, faulted: 0 },
    bytes: { stream: 0, restored: 0 },
  };
}
