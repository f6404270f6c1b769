/** What a switch sends from: the page store, or memory files together with one. */
import type { PageStore } from '../store/pageStore.js';
import type { PageRange } from './memoryStretch.js';
import type { RetainedRun } from './window.js';

export type GuestPages = AsyncDisposable &
  Pick<
    PageStore,
    | 'fillBatch'
    | 'takeNow'
    | 'moveToFront'
    | 'prefer'
    | 'acknowledged'
    | 'givenBack'
    | 'resync'
    | 'remoteSet'
    | 'waitingIn'
    | 'unsent'
    | 'remaining'
    | 'isEmpty'
    | 'isFull'
    | 'heldBytes'
    | 'spilledBytes'
  > & {
    /** These go before the rest. */
    favour(ranges: readonly PageRange[]): void;
    bytesOf(token: number, record: number): KeptRun | null;
  };

export interface KeptRun extends RetainedRun {
  /** It was referred to as a hint: no disk was asked. */
  readonly isHeld?: boolean;
}
