/** What the destination relay of a switch is given, what it tells, and what can be asked of it. */
import type { DiskReader } from '../../../disk/diskReader.js';
import type { RelayCounters } from '../../counters.js';
import type { RelayError } from '../../errors.js';
import type { LinkCredentials } from '../../link/connection.js';
import type { ListenOptions } from '../../link/handshake.js';
import type { FaultStatistics } from '../postcopy/faults.js';

export interface SwitchDestinationOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** Where the destination QEMU listens for its migration. */
  readonly qemuSocketPath: string;
  /** Resolves when it does, with the host page size in bytes of those RAM blocks that do not lie in small pages. */
  readonly qemuListens: Promise<ReadonlyMap<string, number>>;
  /** It may expect a second connection: see `PreemptChannel`. */
  readonly mayPreempt?: boolean;
  /** Disks by the index that references name. The caller closes them. */
  readonly disks: readonly DiskReader[];
  /** Of memory that is sent ahead and may not be what the guest has in the end. */
  readonly heldLimitBytes: number;
  /** So long the source may be out of reach after the switch. */
  readonly reconnectTimeoutMs: number;
  /** And while the guest is the source's; as long when left open. */
  readonly reconnectTimeoutBeforeMs?: number;
  /**
   * Takes the place of a relay that ended after the switch. QEMU, paused, listens for a stream that goes on where the one
   * before broke; the source tells again what is not there.
   */
  readonly takesOver?: boolean;
}

export interface SwitchDestinationHandlers {
  /** The source permits to run the guest, which is being loaded. */
  permitted(): void;
  /** QEMU has the device state: the guest can run. Having taken over: QEMU goes on. */
  loaded(): void;
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
}

export interface SwitchDestinationState {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  readonly isConnected: boolean;
  /** From another relay. */
  readonly hasTakenOver: boolean;
  /** It has, and has not met the source yet. */
  readonly awaitsSource: boolean;
  readonly reconnects: number;
  readonly pendingRestores: number;
  /** Pages that the guest may still have to wait for. */
  readonly missingPages: number;
  readonly faults: FaultStatistics | null;
}
