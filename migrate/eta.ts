/** When the guest will run on the destination, from what is known while its memory is copied. */

export interface EtaView {
  readonly totalPages: number;
  readonly seenPages: number;
  /** Sent as bytes. */
  readonly sentPages: number;
  readonly wireBytes: number;
  /** Pages that will have to be sent as bytes in the first pass, as far as that can be known beforehand. */
  readonly expectedPages: number | null;
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
function firstPassBytes({ totalPages, seenPages, sentPages, wireBytes, expectedPages, backlogBytes }: EtaView) {
  if (sentPages === 0) return null;
  const leftPages = Math.max(0, totalPages - seenPages);
  const expected = expectedPages ?? (totalPages * sentPages) / Math.max(1, seenPages);
  const left = Math.min(leftPages, Math.max(0, expected - sentPages));
  return (left * (wireBytes + backlogBytes)) / sentPages;
}

/** What is dirty, and what will be by then: each pass leaves a share of the one before. */
function dirtyBytes(view: EtaView): number {
  const { remainingBytes, wireBytesPerMemoryByte, dirtyBytesPerSecond, linkBytesPerSecond } = view;
  const load = ((dirtyBytesPerSecond ?? 0) * wireBytesPerMemoryByte) / linkBytesPerSecond;
  return (remainingBytes * wireBytesPerMemoryByte) / (1 - Math.min(mostLoad, load));
}
