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
  /** What the link has taken on average since pages move, in bytes a second. */
  readonly linkBytesPerSecond: number;
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
  const wireBytes = dirtySyncCount < 2 ? firstPassBytes(view) : dirtyBytes(view);
  if (wireBytes === null) return null;
  return ((wireBytes + backlogBytes) / linkBytesPerSecond) * 1000 + stopMs;
}

/** What the first pass still has to send: what it has sent so far says what a page costs. */
function firstPassBytes(view: EtaView): number | null {
  const { totalPages, seenPages, sentPages, wireBytes, backlogBytes, teleportedPages } = view;
  if (sentPages === 0) return null;
  const leftPages = Math.max(0, totalPages - seenPages);
  const leftCached = Math.min(leftPages, Math.max(0, view.cachedPages - teleportedPages));
  const left = (leftPages - leftCached) * sentShare(view, leftPages - leftCached);
  return (left * (wireBytes + backlogBytes)) / sentPages;
}

/** Of the pages that are left and not page cache, those that will have to be sent as bytes. */
function sentShare(
  { totalPages, touchedPages, seenPages, sentPages, teleportedPages, zeroPages }: EtaView,
  left: number,
) {
  if (touchedPages === null) return sentPages / Math.max(1, seenPages - teleportedPages);
  // More zeroes than there are pages that were never written to: so many were written to, and are zero again.
  const zeroAgain = Math.max(0, zeroPages - (totalPages - touchedPages));
  const leftTouched = Math.max(0, touchedPages - sentPages - teleportedPages - zeroAgain);
  return (Math.min(1, leftTouched / Math.max(1, left)) * sentPages) / (sentPages + zeroAgain);
}

/** What is dirty, and what will be by then: each pass leaves a share of the one before. */
function dirtyBytes(view: EtaView): number {
  const { remainingBytes, wireBytesPerMemoryByte, dirtyBytesPerSecond, linkBytesPerSecond } = view;
  const load = ((dirtyBytesPerSecond ?? 0) * wireBytesPerMemoryByte) / linkBytesPerSecond;
  return (remainingBytes * wireBytesPerMemoryByte) / (1 - Math.min(mostLoad, load));
}
