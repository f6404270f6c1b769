/**
 * How long a guest would live on two hosts if it were switched over now: what the destination would still need from the
 * source, at the speed that the link has been measured to take.
 */
import { VmmigError } from './errors.js';
import { pageBytes } from './units.js';

export interface ExposureView {
  /** Pages that only the source has, and that must be sent as bytes. */
  readonly leftPages: number;
  /** Pages sent as bytes so far, and what all that was sent took on the wire: how well this memory compresses. */
  readonly sentPages: number;
  readonly wireBytes: number;
  readonly linkBytesPerSecond: number;
}

/** Compressed, framed and encrypted memory takes little more than memory. */
const mostWirePerPage = 1.05 * pageBytes;

export function expectedExposureMs({ leftPages, sentPages, wireBytes, linkBytesPerSecond }: ExposureView): number {
  if (leftPages === 0) return 0;
  const wirePerPage = sentPages === 0 ? mostWirePerPage : Math.min(mostWirePerPage, wireBytes / sentPages);
  return (leftPages * wirePerPage * 1000) / Math.max(1, linkBytesPerSecond);
}

/** @throws VmmigError VMMIG_EXPOSURE when the link cannot bring it all in the time that is allowed */
export function checkExposure(view: ExposureView, maxExposureMs: number): void {
  const expectedMs = expectedExposureMs(view);
  if (expectedMs <= maxExposureMs) return;
  const megabytes = Math.round((view.leftPages * pageBytes) / 1e6);
  const megabits = Number(((view.linkBytesPerSecond * 8) / 1e6).toPrecision(3));
  throw new VmmigError(
    'VMMIG_EXPOSURE',
    `${megabytes} MB of memory would still be on the source, and bringing it at ${megabits} Mbit/s would take ` +
      `${seconds(expectedMs)} s; ${seconds(maxExposureMs)} s are allowed. The guest was not switched`,
    { phase: 'precopy' },
  );
}

const seconds = (ms: number) => Math.ceil(ms / 1000);
