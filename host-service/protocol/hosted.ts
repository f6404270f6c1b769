/** What a host says of the migrations that it takes part in: for `status` and `recover`. */
import type { SwitchDestinationState } from '../../relay/destination/switchDestination.js';
import type { SourceRelayState } from '../../relay/source/sourceRelay.js';
import type { SwitchSourceState } from '../../relay/source/switchSource.js';
import type { DestinationState, Ledger, SourceState } from '../commit/index.js';

/** One host's part in a migration that is not over. */
export interface HostedMigration {
  /** Without what is secret. */
  readonly ledger: Omit<Ledger, 'link' | 'memory'>;
  /** Another service could take the place of the one that is at work here, should that die during the pull. */
  readonly isReplaceable: boolean;
  /** The host has restarted since: nothing that is missing here means anything. */
  readonly isFromBefore: boolean;
  /** What it has decided at the commit point. */
  readonly decision: 'held' | 'kept' | 'run' | 'end' | null;
  /** It has a service, which does not answer. */
  readonly isBusy: boolean;
  /** What its service says of a switch; null when it has none any more. */
  readonly source: (SwitchSourceState & SwitchStatus & { readonly commit: SourceState }) | null;
  /** Of a teleport, on either side. */
  readonly teleport: TeleportStatus | null;
  readonly destination:
    | (SwitchDestinationState &
        SwitchStatus & {
          readonly commit: DestinationState;
          /** When the guest was let run, by the host's clock; null before. */
          readonly resumedAtMs: number | null;
        })
    | null;
}

/** What a teleport's service says of itself; of its relay, once there is one. */
export interface TeleportStatus extends Partial<SourceRelayState> {
  readonly commit: SourceState | DestinationState;
  /** When the guest was let run here, by the host's clock; null before, absent at the source. */
  readonly resumedAtMs?: number | null;
  /** Whether the relays are connected, as far as the relay tells. */
  readonly isConnected?: boolean;
  readonly interruptedAtMs?: number | null;
}

interface SwitchStatus {
  /** Since when the relays are not connected, by the host's clock; null while they are. */
  readonly interruptedAtMs: number | null;
}
