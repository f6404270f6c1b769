import type { PageCounts } from '../../store/pageStore.js';

/** Pages that the guest still needs from here, by how they will get there. */
export interface Remaining {
  readonly zeroPages: number;
  readonly bytesPages: number;
  readonly referencePages: number;
}

/** @param counts - undefined: nothing is known of the guest's memory yet */
export function remainingOf(counts: PageCounts | undefined): Remaining {
  return {
    zeroPages: counts?.fill ?? 0,
    bytesPages: counts?.bytes ?? 0,
    referencePages: counts?.reference ?? 0,
  };
}
