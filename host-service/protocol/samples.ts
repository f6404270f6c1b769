/** What the services push while a guest is moved. */
import type { RelayCounters } from '../../relay/counters.js';
import type { FaultStatistics } from '../../relay/destination/postcopy/faults.js';
import type { SourceRelayState } from '../../relay/source/sourceRelay.js';
import type { Remaining } from '../../relay/source/switchSource.js';
import type { Ahead } from '../memoryAhead.js';

/** Pushed by the source about twenty times a second. */
export interface SourceSample extends SourceRelayState {
  /** When it was so, by a clock of the source's that only counts. */
  readonly takenAtMs: number;
  /** QEMU's own view: `setup`, `active`, `completed`, … */
  readonly status: string;
  readonly remainingBytes: number;
  readonly dirtyBytesPerSecond: number | null;
  readonly dirtySyncCount: number;
  /** What QEMU has written of the guest's memory, also what the relay has not taken yet. */
  readonly qemuSentBytes: number;
  /** As QEMU sees it. */
  readonly qemuBytesPerSecond: number;
  /** Of the guest's processors' time, taken from it by QEMU. */
  readonly throttlePercent: number;
  /** QEMU has stopped the guest. */
  readonly isStopped: boolean;
  /** Pages of the guest's memory that have ever been written to; null where that is not known. */
  readonly touchedPages: number | null;
  /** Of a teleport, what QEMU's first pass has still ahead of it, by a look at some of it; null where that is not known. */
  readonly ahead: Ahead | null;
  /** What the destination still needs from here; null for a teleport. */
  readonly remaining: Remaining | null;
  /** How the guest's memory gets to the relay: through QEMU's migration stream, or from the file that it is kept in. */
  readonly capture: 'stream' | 'memory file';
  /** Pages that QEMU has not been let send yet, so that it does not stop the guest: 0 when it is not held back. */
  readonly heldBackPages: number;
  /** Pages that the guest has used lately and that are not on their way yet; null while they are not known. */
  readonly expectedUnsentPages: number | null;
  /** From a file: all has been sent ahead that the destination is willing to hold. */
  readonly isSentAhead: boolean;
}

export interface DestinationSample {
  /** When it was so, by a clock of the destination's that only counts. */
  readonly takenAtMs: number;
  /** Both ways, as it has got here or set out from here. */
  readonly bytesOnWire: number;
  readonly counters: RelayCounters;
  readonly pendingRestores: number;
  /** Of a switch. */
  readonly missingPages: number | null;
  readonly faults: FaultStatistics | null;
}
