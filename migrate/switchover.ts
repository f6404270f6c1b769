/**
 * When the guest may be stopped. QEMU does that as soon as what it knows to be dirty takes no longer than its
 * `downtime-limit`, right after it has looked, which nobody else can know as exactly. What it does not know is what else the
 * guest will wait for: what is under way, the state of its devices, and the way to the commit point. That is subtracted here
 * from what was promised, and the rest is what QEMU is given.
 */

export interface SwitchoverView {
  /** What QEMU says is still dirty. */
  readonly remainingBytes: number;
  /** On the wire: taken from the guest's memory and not yet in place at the destination. */
  readonly backlogBytes: number;
  /** What the link has been taking, in bytes a second. */
  readonly linkBytesPerSecond: number;
  readonly rttMs: number;
  /** Bytes on the wire for each byte of memory lately: zero pages and references cost next to nothing. */
  readonly wireBytesPerMemoryByte: number;
  /** Times QEMU has been through the guest's memory. */
  readonly dirtySyncCount: number;
  /** What the stop takes however little is to be sent, the round trips between the hosts included. */
  readonly fixedMs: number;
}

/** Device state of a small guest, packed; sent after the guest has stopped. */
const deviceStateBytes = 64 * 1024;
/** A link that is measured is not a link that is promised. */
const linkMargin = 0.85;
/** Of what was promised: what a host that is busy adds to what was measured before. Not spent, where there is a choice. */
const timeMargin = 0.15;
/** For less than this QEMU need not try. */
const leastMs = 5;

/** How long the guest would stand still if it were stopped now. */
export function expectedDowntimeMs(view: SwitchoverView): number {
  return stopMs(view) + memoryMs(view);
}

/**
 * How long QEMU may take for what is dirty when it stops the guest, in milliseconds at the speed of the link; 0 when the
 * promise cannot be kept, however little that is. One round trip goes on top of what was promised.
 */
export function memoryBudgetMs(view: SwitchoverView, maxDowntimeMs: number): number {
  const leftMs = maxDowntimeMs + view.rttMs - stopMs(view);
  return leftMs < leastMs ? 0 : Math.max(leastMs, leftMs - timeMargin * maxDowntimeMs);
}

/** The first pass sends everything once; before its end nothing is known about what is left. */
export function isTimeToSwitch(view: SwitchoverView, maxDowntimeMs: number): boolean {
  if (view.dirtySyncCount < 2) return false;
  const budgetMs = memoryBudgetMs(view, maxDowntimeMs);
  return budgetMs > 0 && memoryMs(view) <= budgetMs;
}

/**
 * Without what is dirty. Of a link that is busy, a round trip's worth of what is under way does not count: half of that has
 * arrived, and is being acknowledged, and the way of the last byte is in what is fixed.
 */
function stopMs({ backlogBytes, linkBytesPerSecond, rttMs, fixedMs }: SwitchoverView): number {
  const backlogMs = Math.max(0, wireMs(backlogBytes, linkBytesPerSecond) - rttMs);
  return backlogMs + wireMs(deviceStateBytes, linkBytesPerSecond) + fixedMs;
}

function memoryMs({ remainingBytes, wireBytesPerMemoryByte, linkBytesPerSecond }: SwitchoverView): number {
  return wireMs(remainingBytes * wireBytesPerMemoryByte, linkBytesPerSecond);
}

function wireMs(bytes: number, linkBytesPerSecond: number): number {
  return (bytes / Math.max(1, linkBytesPerSecond * linkMargin)) * 1000;
}
