/** When a switch is to take place: at once, after a while, or when next to nothing is left; and whether it may. */
import { call, type SourceSample } from '../host-service/protocol.js';
import { checkExposure } from './exposure.js';
import type { SwitchRequest } from './requests.js';
import type { Side } from './sides.js';
import type { SwitchView } from './switchView.js';

/** Before that a link has not shown what it takes. */
const measuringMs = 1_000;

/**
 * Resolves when the guest may be switched.
 * @param elapsedMs - by the clock that `after` counts by
 * @throws VmmigError VMMIG_EXPOSURE; the signal's reason
 */
export async function untilTimeToSwitch(
  { after, maxExposureMs, prefetchShare = 0 }: SwitchRequest,
  view: SwitchView,
  source: Side,
  elapsedMs: () => number,
  signal: AbortSignal,
): Promise<void> {
  const startMs = elapsedMs();
  const hasLasted = (ms: number) => elapsedMs() - startMs >= ms;
  const until = (isReached: (sample: SourceSample) => boolean) => view.until(isReached, signal);
  if (after === 'converged') {
    await until((sample) => isCaptured(sample) && isSent(sample));
    if (view.latest!.heldBackPages > 0) {
      await call(source.rpc, 'source.keepUp', {}, { signal });
      // QEMU stops a guest that writes little by itself then.
      await until((sample) => sample.ramEnded || (sample.dirtySyncCount >= 2 && isSent(sample)));
    }
  } else if (after !== 'now') await until((sample) => isCaptured(sample) && hasLasted(after));
  if (prefetchShare > 0)
    await until((sample) => sample.ramEnded || (isCaptured(sample) && sample.expectedUnsentPages === 0));
  if (maxExposureMs === undefined) return;
  await until((sample) => sample.ramEnded || (isCaptured(sample) && (isSent(sample) || hasLasted(measuringMs))));
  const { counters, bytesOnWire: wireBytes, remaining, heldBackPages } = view.latest!;
  const leftPages = (remaining?.bytesPages ?? 0) + heldBackPages;
  const { linkBytesPerSecond } = view;
  checkExposure({ leftPages, sentPages: counters.pages.sent, wireBytes, linkBytesPerSecond }, maxExposureMs);
}

/** QEMU has been through the guest's memory, but for what it is held back by: what is left is known. */
function isCaptured({ dirtySyncCount, capture, heldBackPages, ramEnded }: SourceSample): boolean {
  return dirtySyncCount >= 2 || capture === 'memory file' || heldBackPages > 0 || ramEnded;
}

/** Nearly all that the guest has is on the destination. */
function isSent({ remaining, counters, capture, isSentAhead }: SourceSample): boolean {
  if (capture === 'memory file') return isSentAhead;
  return remaining !== null && remaining.bytesPages + remaining.referencePages < counters.totalPages / 100;
}
