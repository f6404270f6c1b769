/** What the methods of `vmmig host-service` answer. */
import type { DiskProof, DiskSamples } from '../../disk/index.js';
import type { AgentRoute } from '../../guest-agent/guestAgent.js';
import type { GuestDisk } from '../../guest-agent/messages.js';
import type { DomainInspection, Finding, GuestInspection, ProcessId } from '../../hypervisor/index.js';
import type { RelayCounters } from '../../relay/counters.js';
import type { FaultStatistics } from '../../relay/destination/postcopy/faults.js';
import type { DestinationState, SourceState } from '../commit/index.js';
import type { HostedMigration } from './hosted.js';
import type { SourceSample } from './samples.js';

/** Results of every method. */
export interface Results {
  /** Milliseconds since the epoch, by the host's clock. */
  'host.clock': number;
  'host.checks': readonly Check[];
  'host.domains': readonly string[];
  'guest.probe': GuestProbe;
  'source.inspect': {
    readonly inspection: GuestInspection;
    readonly agent: AgentSearch | null;
    /** What only libvirt knows, of a guest that it manages. */
    readonly domain: DomainInspection | null;
  };
  'source.check': readonly Finding[];
  'source.scan': ScanSummary;
  /** Null for an image that cannot be read. */
  'source.sampleDisks': readonly (DiskSamples | null)[];
  'source.listen': null;
  'source.skipDisks': null;
  'source.connect': null;
  'source.start': null;
  'source.keepUp': null;
  'source.throttle': null;
  'source.switchOver': null;
  /** When the guest stopped, by the host's clock. */
  'source.finished': { readonly stoppedAtMs: number; readonly sample: SourceSample };
  'source.hold': null;
  /** When the guest stopped, by the host's clock. */
  'source.switched': { readonly stoppedAtMs: number; readonly sample: SourceSample };
  'source.post': {
    readonly state: SourceState;
    /** It belongs here, and its QEMU is gone: it runs nowhere. */
    readonly guestHasEnded: boolean;
  };
  'destination.ask': AskedDestination;
  'destination.takeOver': TakeOver;
  /** `waiting`: `source.reconnect` is to follow. */
  'source.takeOver': 'atWork' | 'waiting';
  'source.reconnect': null;
  'host.migrations': readonly HostedMigration[];
  /** Null when the pull ended before it was asked for. */
  'source.pulled': { readonly sample: SourceSample } | null;
  'source.allowDowntime': null;
  'destination.switched': { readonly resumedAtMs: number };
  'destination.pulled': Pulled | null;
  'destination.check': readonly Finding[];
  'destination.checkDomain': readonly Finding[];
  'destination.compareDisks': readonly DiskComparison[];
  /** For people, for each path. */
  'destination.diskWriters': readonly (readonly string[])[];
  'destination.start': StartedProcess;
  /** `tunnel`: the way to the destination's daemon; null where there is none. */
  'destination.listen': {
    readonly port: number;
    readonly tunnel: { readonly port: number; readonly opensAsUsual: boolean } | null;
    readonly bootId: string;
  };
  'destination.expect': StartedProcess;
  'destination.finished': Loaded;
  /** When the guest was resumed, by the host's clock. */
  'destination.commit': { readonly resumedAtMs: number };
  'destination.conclude': null;
}

/** Where the destination's side of the commit point is. */
export interface AskedDestination {
  readonly state: DestinationState;
  /** It was decided that the guest runs here, and its QEMU is gone. */
  readonly guestHasEnded: boolean;
  /** The host has been up since the migration began: what is missing here means something. */
  readonly remembers: boolean;
}

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly severity: 'required' | 'recommended';
  readonly detail: string;
  readonly remedy: string | null;
}

export interface GuestProbe {
  /** QEMU's run state; null when no QEMU answers on the socket. */
  readonly state: string | null;
  readonly memoryBytes: number | null;
  /** Whether one answers; null when that is not known. */
  readonly agent: boolean | null;
  readonly agentVia: AgentRoute | null;
  /** A migration that QEMU has under way. */
  readonly migrating: boolean;
  readonly problem: string | null;
}

/** What has come of looking for a guest's agent. */
export type AgentSearch =
  | { readonly found: true; readonly version: string; readonly via: AgentRoute }
  | {
      readonly found: false;
      /** For people. */
      readonly reason: string;
      /** qemu-guest-agent answers, and is not allowed to do what would take the agent's place. */
      readonly isBlocked: boolean;
      /** The guest's page cache by its own count; null where it tells nobody. */
      readonly pageCacheBytes: number | null;
    };

/** What a destination says of an image, compared with the source's. */
export type DiskComparison = Omit<DiskProof, 'verdict'> & { readonly verdict: DiskProof['verdict'] | 'unreadable' };

export interface ScanSummary {
  readonly via: AgentRoute;
  readonly scanMs: number;
  readonly pages: number;
  readonly runs: number;
  readonly disks: readonly (GuestDisk & { readonly pages: number })[];
  readonly skipped: Readonly<Record<string, number>>;
}

/** A process, and in which boot of its host it was started. Its pid is 0 when it is libvirt that starts it. */
export interface StartedProcess extends ProcessId {
  readonly bootId: string;
}

export interface Loaded {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
}

export interface Pulled extends Loaded {
  readonly faults: FaultStatistics | null;
  /** By a relay that had taken over from another one: what that had placed was not compared. */
  readonly hasTakenOver: boolean;
}

/**
 * What has become of a destination's part that was to be taken over: a relay waits for the source, one is at work with
 * it, or the guest has all of its memory.
 */
export type TakeOver =
  | { readonly state: 'waiting'; readonly port: number /** For another source. */; readonly wasAtWork: boolean }
  | { readonly state: 'atWork' }
  | { readonly state: 'complete' };
