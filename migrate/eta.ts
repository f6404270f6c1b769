/** When the guest will run on the destination, from what is known while its memory is copied. */
import type { Ahead, Written } from '../host-service/protocol.js';

export interface EtaView {
  readonly totalPages: number;
  readonly seenPages: number;
  /** Of those: as bytes, as references, and next to nothing. */
  readonly sentPages: number;
  readonly teleportedPages: number;
  readonly zeroPages: number;
  /** What they took: on the destination, or under way. */
  readonly sentBytes: number;
  /** Of the first pass, what it has not come to yet: pages that are not zero, and bytes for the link; null where it is not known. */
  readonly ahead: Ahead | null;
  /** Pages that the host has memory for: the others are zero. Null where that is not known. For want of `ahead`. */
  readonly touchedPages: number | null;
  /** Pages that need not be sent as bytes. */
  readonly cachedPages: number;
  /** What the link has shown that it takes; null before it has. */
  readonly linkBytesPerSecond: number | null;
  /** Pages that are not zero, on average since pages move: of memory that the link need not carry, QEMU is what takes long. */
  readonly pagesPerSecond: number;
  /** Taken from QEMU, and not on the destination. */
  readonly backlogBytes: number;
  /** What QEMU has to send again. */
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
  if (linkBytesPerSecond === null || linkBytesPerSecond <= 0 || view.totalPages === 0) return null;
  const wireMs = (bytes: number) => ((bytes + backlogBytes) / linkBytesPerSecond) * 1000;
  if (dirtySyncCount >= 2) return wireMs(dirtyBytes(view, linkBytesPerSecond)) + stopMs;
  const ahead = view.ahead ?? guessAhead(view);
  if (ahead === null) return null;
  const passMs = Math.max(wireMs(ahead.bytes), (ahead.pages / Math.max(1, view.pagesPerSecond)) * 1000);
  return passMs + writtenMs(ahead.written, passMs, linkBytesPerSecond) + stopMs;
}

/** By what the first pass has sent so far; null before there is any of that. */
function guessAhead(view: EtaView): Ahead | null {
  const { totalPages, seenPages, sentPages, teleportedPages, zeroPages, touchedPages, cachedPages } = view;
  if (sentPages === 0) return null;
  const bytesPerPage = view.sentBytes / sentPages;
  const leftPages = Math.max(0, totalPages - seenPages);
  const leftCached = Math.min(leftPages, Math.max(0, cachedPages - teleportedPages));
  const guess = (pages: number) => ({ pages: pages + leftCached, bytes: pages * bytesPerPage, written: null });
  if (touchedPages === null)
    return guess((leftPages - leftCached) * (sentPages / Math.max(1, seenPages - teleportedPages)));
  // More zeroes than there are pages that were never written to: so many were written to, and are zero again.
  const zeroAgain = Math.max(0, zeroPages - (totalPages - touchedPages));
  const leftTouched = Math.min(leftPages, touchedPages - sentPages - teleportedPages - zeroAgain);
  return guess((Math.max(0, leftTouched - leftCached) * sentPages) / (sentPages + zeroAgain));
}

/** What is dirty, and what will be by then. */
function dirtyBytes(view: EtaView, linkBytesPerSecond: number): number {
  const { remainingBytes, wireBytesPerMemoryByte, dirtyBytesPerSecond } = view;
  const load = ((dirtyBytesPerSecond ?? 0) * wireBytesPerMemoryByte) / linkBytesPerSecond;
  return inPasses(remainingBytes * wireBytesPerMemoryByte, load);
}

/** What it takes to send again what will be dirty when the first pass is over: no more than the guest writes to at all. */
function writtenMs(written: Written | null, passMs: number, linkBytesPerSecond: number): number {
  if (written === null) return 0;
  const { behindBytes, bytesPerSecond, everBytes, newBytesPerSecond } = written;
  const byThen = (bytes: number, perSecond: number) => bytes + (perSecond * passMs) / 1000;
  const dirty = Math.min(byThen(behindBytes, bytesPerSecond), byThen(everBytes, newBytesPerSecond));
  return (inPasses(dirty, bytesPerSecond / linkBytesPerSecond) / linkBytesPerSecond) * 1000;
}

/** Each pass leaves a share of the one before. */
function inPasses(bytes: number, load: number): number {
  return bytes / (1 - Math.min(mostLoad, load));
}
