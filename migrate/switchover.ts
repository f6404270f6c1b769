/**
 * When to stop the guest. QEMU decides by the bandwidth it sees, and it sees a relay that takes
 * references at memory speed; so QEMU is kept iterating, and this says when the rest fits into the
 * promised downtime on the link as it really is.
 */

export interface SwitchoverView {
  /** What QEMU says is still dirty. */
  readonly remainingBytes: number;
  /** Sent to the destination and not yet in place there. */
  readonly backlogBytes: number;
  /** What the link has been taking, in bytes a second. */
  readonly linkBytesPerSecond: number;
  readonly rttMs: number;
  /** Bytes on the wire for each byte of memory lately: zero pages and references cost next to nothing. */
  readonly wireBytesPerMemoryByte: number;
  /** Times QEMU has been through the guest's memory. */
  readonly dirtySyncCount: number;
}

/** Device state of a small guest; sent after the guest has stopped. */
const deviceStateBytes = 512 * 1024;

/** How long the guest would stand still if it were stopped now. */
export function expectedDowntimeMs(view: SwitchoverView): number {
  const bytes = view.backlogBytes + view.remainingBytes * view.wireBytesPerMemoryByte + deviceStateBytes;
  return (bytes / Math.max(1, view.linkBytesPerSecond)) * 1000 + view.rttMs;
}

/** The first pass sends everything once; before its end nothing is known about what is left. */
export function isTimeToSwitch(view: SwitchoverView, maxDowntimeMs: number): boolean {
  return view.dirtySyncCount >= 2 && expectedDowntimeMs(view) <= maxDowntimeMs;
}
