/** When the guest will run on the destination, from what is known while its memory is copied. */

export interface EtaView {
  readonly totalPages: number;
  readonly seenPages: number;
  /** Of those: as bytes, as references, and next to nothing. */
  readonly sentPages: number;
  readonly teleportedPages: number;
  readonly zeroPages: number;
  readonly wireBytes: number;
  /** Pages that have ever been written to: the others are zero. Null where that is not known. */
  readonly touchedPages: number | null;
  /** Pages that need not be sent as bytes. */
  readonly cachedPages: number;
  /** What the link has shown that it takes. */
  readonly linkBytesPerSecond: number;
  /** Pages that are not zero, on average since pages move: of memory that the link need not carry, QEMU is what takes long. */
  readonly pagesPerSecond: number;
  readonly backlogBytes: number;
  /** What QEMU says is still dirty. */
  readonly remainingBytes: number;
  readonly dirtySyncCount: number;
  readonly dirtyBytesPerSecond: number | null;
  readonly wireBytesPerMemoryByte: number;
  /** How long the guest will stand still. */
  readonly stopMs: number;
}

/** A guest that writes nearly as fast as the link takes is estimated no worse than this. */
const mostLoad = 0.95;

/** @returns milliseconds; null while no honest estimate can be made */
export function etaMs(view: EtaView): number | null {
  const { linkBytesPerSecond, dirtySyncCount, backlogBytes, stopMs } = view;
  if (linkBytesPerSecond <= 0 || view.totalPages === 0) return null;
  const wireMs = (bytes: number) => ((bytes + backlogBytes) / linkBytesPerSecond) * 1000;
  if (dirtySyncCount >= 2) return wireMs(dirtyBytes(view)) + stopMs;
  if (view.sentPages === 0) return null;
  const { sendPages, readPages } = firstPass(view);
  // What the first pass has sent so far says what a page costs.
  const sendMs = wireMs((sendPages * (view.wireBytes + backlogBytes)) / view.sentPages);
  return Math.max(sendMs, (readPages / Math.max(1, view.pagesPerSecond)) * 1000) + stopMs;
}

/** What the first pass has still to send, and to read, page cache included. */
function firstPass(view: EtaView): { sendPages: number; readPages: number } {
  const { totalPages, seenPages, sentPages, teleportedPages, zeroPages, touchedPages, cachedPages } = view;
  const leftPages = Math.max(0, totalPages - seenPages);
  const leftCached = Math.min(leftPages, Math.max(0, cachedPages - teleportedPages));
  if (touchedPages === null) {
    const share = sentPages / Math.max(1, seenPages - teleportedPages);
    const sendPages = (leftPages - leftCached) * share;
    return { sendPages, readPages: sendPages + leftCached };
  }
  // More zeroes than there are pages that were never written to: so many were written to, and are zero again.
  const zeroAgain = Math.max(0, zeroPages - (totalPages - touchedPages));
  const leftTouched = Math.min(leftPages, touchedPages - sentPages - teleportedPages - zeroAgain);
  const sendPages = (Math.max(0, leftTouched - leftCached) * sentPages) / (sentPages + zeroAgain);
  return { sendPages, readPages: sendPages + leftCached };
}

/** What is dirty, and what will be by then: each pass leaves a share of the one before. */
function dirtyBytes(view: EtaView): number {
  const { remainingBytes, wireBytesPerMemoryByte, dirtyBytesPerSecond, linkBytesPerSecond } = view;
  const load = ((dirtyBytesPerSecond ?? 0) * wireBytesPerMemoryByte) / linkBytesPerSecond;
  return (remainingBytes * wireBytesPerMemoryByte) / (1 - Math.min(mostLoad, load));
}
