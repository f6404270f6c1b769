/**
 * What the policy asks of a host: the methods of `vmmig host-service`, their parameters and results. One service
 * process serves one session; it plays the source's part, the destination's, or answers questions.
 * A service whose session ends before the commit point puts everything back by itself.
 */
import * as z from 'zod';
import type { DiskProof, DiskSamples } from '../disk/index.js';
import type { AgentRoute } from '../guest-agent/guestAgent.js';
import type { GuestDisk } from '../guest-agent/messages.js';
import type { RequestOptions, RpcClient } from '../hosts/rpc.js';
import type {
  DestinationPlan,
  DomainInspection,
  DomainPlan,
  Finding,
  GuestInspection,
  ProcessId,
} from '../hypervisor/index.js';
import type { RelayCounters } from '../relay/counters.js';
import type { FaultStatistics } from '../relay/destination/postcopy/faults.js';
import type { SwitchDestinationState } from '../relay/destination/switchDestination.js';
import type { SourceRelayState } from '../relay/source/sourceRelay.js';
import type { Remaining, SwitchSourceState } from '../relay/source/switchSource.js';
import type { DestinationState, Ledger, SourceState } from './commit/index.js';

const domainAddressSchema = z.object({ uri: z.string(), domain: z.string().min(1) });

export const guestSchema = z.object({
  name: z.string(),
  qmpPath: z.string(),
  agentPath: z.string().nullable(),
  /** Of a guest that libvirt manages: its daemon, as that host calls it, and the domain's name there. */
  libvirt: domainAddressSchema.optional(),
});
export type GuestAddress = z.infer<typeof guestSchema>;

/** What a switch needs beyond a teleport. */
const switchingSchema = z.object({
  /** Null: a share of the memory that is free. */
  pageStoreLimitBytes: z.number().int().positive().nullable(),
  /** Where what exceeds the page store's limit may go: a directory; null: nowhere. */
  spillDir: z.string().nullable(),
  reconnectTimeoutMs: z.number().positive(),
  /** A QEMU that has stopped the guest before `source.allowDowntime` waits for it: the guest may have to stay. */
  awaitsPermission: z.boolean(),
  /** QEMU must not stop the guest before `source.allowDowntime`, however little is left. */
  holdsBack: z.boolean(),
  /** Of what the guest has used lately, that goes before the rest of its memory. */
  prefetchShare: z.number().min(0).max(1),
});
export type Switching = z.infer<typeof switchingSchema>;

/** An image as a host finds it. */
const imageSchema = z.object({ path: z.string(), format: z.string(), keyFile: z.string().optional() });
const samplesSchema = z.object({
  lengthBytes: z.number(),
  samples: z.array(z.object({ offsetBytes: z.number(), lengthBytes: z.number(), digest: z.string().nullable() })),
});

/** Becomes part of paths that are removed: nothing that leads elsewhere. */
const migrationId = z.string().regex(/^[\w-]+$/);
/** Names the directory that a migration has on a host while it goes on. */
const directorySchema = z.object({ migrationId, runDir: z.string().startsWith('/') });
/** What a service that has no part in a migration finds it by. */
const migrationSchema = z.object({ ...directorySchema.shape, guest: guestSchema });
const endpointSchema = z.object({ host: z.string(), port: z.number().int() });
export type Endpoint = z.infer<typeof endpointSchema>;
/** What libvirt is to do; in virsh's terms. */
const domainDepartureSchema = z.object({
  /** Where the destination's service leads to its daemon; else there is a URI. */
  tunnel: endpointSchema.nullable(),
  destinationUri: z.string().nullable(),
  persistent: z.boolean(),
  undefineSource: z.boolean(),
  destinationName: z.string().nullable(),
  xml: z.string().nullable(),
  unsafe: z.boolean(),
  autoConverge: z.boolean(),
});
export type DomainDepartureParams = z.infer<typeof domainDepartureSchema>;
/** Whom a migration is about: what each host notes of it. */
const partySchema = z.object({
  guest: guestSchema,
  /** The other host, as the caller calls it, and its run directory. */
  peer: z.object({ host: z.string(), runDir: z.string() }),
});
/** 32 bytes. */
const credentialsSchema = z.object({ migrationId, key: z.base64().length(44) });

/** Parameters of every method, checked before use. */
export const methodParams = {
  'host.clock': z.object({}),
  'host.checks': z.object({}),
  /** Names of all that libvirt knows; none where there is no libvirt. */
  'host.domains': z.object({}),
  /** `noAgent`: the guest's agent is not to be looked for. */
  'guest.probe': z.object({ ...guestSchema.shape, noAgent: z.boolean().optional() }),
  'source.inspect': z.object({ ...guestSchema.shape, noAgent: z.boolean().optional() }),
  /** Looks at what vmmig itself needs there. */
  'source.check': z.object({ runDir: z.string().startsWith('/') }),
  'source.scan': z.object({ mode: z.enum(['full', 'changes']) }),
  /** Digests of some blocks of the guest's disks. `offsets`: of which; else they are chosen. */
  'source.sampleDisks': z.object({
    images: z.array(z.object({ image: imageSchema, offsets: z.array(z.number()).optional() })),
  }),
  'source.listen': z.object({
    ...directorySchema.shape,
    ...partySchema.shape,
    ...credentialsSchema.shape,
    connections: z.number().int().min(1).max(16),
    bandwidthBps: z.number().positive().nullable(),
    compress: z.boolean(),
    /** So long a relay looks for the other while the guest is the source's; 0: not at all. */
    reconnectTimeoutMs: z.number().nonnegative(),
    /** For each disk of the agent: its index in the destination's list, or -1. */
    diskIndexes: z.array(z.number().int()),
    /** Null for a teleport. */
    switching: switchingSchema.nullable(),
  }),
  /** Of the destination's list: those that it cannot read. Their pages are sent. */
  'source.skipDisks': z.object({ indexes: z.array(z.number().int()) }),
  /** Where the destination's relay listens. */
  'source.connect': endpointSchema,
  'source.start': z.object({
    /** The guest may be slowed down, should `source.throttle` ask for it. */
    mayThrottle: z.boolean(),
    domain: domainDepartureSchema.optional(),
  }),
  /** A QEMU that was held back goes on, as the link takes it. */
  'source.keepUp': z.object({}),
  'source.throttle': z.object({}),
  'source.switchOver': z.object({}),
  'source.finished': z.object({}),
  /** Of a teleport: the guest may go from here on. With the boot of the destination, as that has told it. */
  'source.hold': z.object({ peerBootId: z.string().nullable() }),
  /** To the source's side of the commit point, in whatever service it is. */
  'source.post': z.object({
    ...directorySchema.shape,
    guest: guestSchema,
    event: z.enum(['abandon', 'release', 'resume']),
  }),
  /** `bootId`: of the host when the migration began, where that is known. */
  'destination.ask': z.object({ ...migrationSchema.shape, bootId: z.string().nullable() }),
  /** Of a teleport: the source has let go of the guest, and nobody will ask any more. */
  'destination.conclude': migrationSchema,
  /**
   * Takes the place of a service that died after the guest had begun to run there. `isSourceNew`: one that is alive there
   * waits for another source.
   */
  'destination.takeOver': z.object({ ...migrationSchema.shape, isSourceNew: z.boolean() }),
  /** Takes the place of a service that died after the guest had gone, whose memory is kept in files. */
  'source.takeOver': migrationSchema,
  /** Where the relay waits that has taken over; null: the destination needs nothing any more. */
  'source.reconnect': z.object({
    ...directorySchema.shape,
    endpoint: endpointSchema.nullable(),
  }),
  /** The migrations that a host takes part in, and what their services say of themselves. */
  'host.migrations': z.object({ runDir: z.string().startsWith('/') }),
  /** As the policy derived it: its parts are looked at, none of them is carried out. */
  'destination.check': z.custom<DestinationPlan>((plan) => typeof plan === 'object' && plan !== null),
  /** Whether images here hold the same. `samples`: null to see only whether it can be read. */
  'destination.compareDisks': z.object({
    images: z.array(z.object({ image: imageSchema, samples: samplesSchema.nullable(), mayGrow: z.boolean() })),
  }),
  /** Who writes to images here. `except`: a process that may. */
  'destination.diskWriters': z.object({
    paths: z.array(z.string()),
    except: z.object({ pid: z.number().int(), startTime: z.number() }).nullable(),
  }),
  'destination.checkDomain': z.custom<DomainPlan>((plan) => typeof plan === 'object' && plan !== null),
  'destination.start': z.object({
    ...directorySchema.shape,
    stateDir: z.string(),
    vm: z.string(),
    argv: z.array(z.string()),
    cwd: z.string(),
    qmpPath: z.string(),
    disks: z.array(imageSchema),
    /** QEMU is to be able to run the guest before it has all its memory. */
    postcopy: z.boolean(),
  }),
  'destination.listen': z.object({
    ...directorySchema.shape,
    ...partySchema.shape,
    ...credentialsSchema.shape,
    ports: z.tuple([z.number().int(), z.number().int()]).nullable(),
    reconnectTimeoutMs: z.number().nonnegative(),
    switching: switchingSchema.nullable(),
    /** As whom the domain's own label has QEMU run; null where that is left to the host. */
    domainUser: z.string().nullable(),
  }),
  /** Readies the host for a domain that libvirt is going to bring. */
  'destination.expect': z.object({
    ...directorySchema.shape,
    vm: z.string(),
    libvirt: domainAddressSchema,
    disks: z.array(imageSchema),
    /** In bytes, of the RAM blocks that do not lie in small pages. */
    pageSizes: z.record(z.string(), z.number().int().positive()),
  }),
  /** Resolves when the guest runs on the destination. */
  'source.switched': z.object({}),
  'destination.switched': z.object({}),
  /** Resolves when the source host holds nothing of the guest any more, also when another service is at work on it. */
  'source.pulled': migrationSchema,
  'destination.pulled': migrationSchema,
  /** Permits the switch, and sets the downtime, in milliseconds at memory speed, at which QEMU stops the guest. */
  'source.allowDowntime': z.object({ downtimeLimitMs: z.number().int().positive() }),
  'destination.finished': z.object({}),
  'destination.commit': z.object({}),
} as const;

export type Method = keyof typeof methodParams;
export type Params<M extends Method> = z.infer<(typeof methodParams)[M]>;

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

export type { AgentRoute };

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

export interface SwitchStatus {
  /** Since when the relays are not connected, by the host's clock; null while they are. */
  readonly interruptedAtMs: number | null;
}

export type { FaultStatistics };

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
  'destination.ask': { readonly state: DestinationState };
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
  /** `tunnelPort`: where the way to the destination's daemon begins; null where there is none. */
  'destination.listen': { readonly port: number; readonly tunnelPort: number | null };
  'destination.expect': StartedProcess;
  'destination.finished': Loaded;
  /** When the guest was resumed, by the host's clock. */
  'destination.commit': { readonly resumedAtMs: number };
  'destination.conclude': null;
}

/** Pushed by the source about twenty times a second. */
export interface SourceSample extends SourceRelayState {
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
  readonly counters: RelayCounters;
  readonly pendingRestores: number;
  /** Of a switch. */
  readonly missingPages: number | null;
  readonly faults: FaultStatistics | null;
}

export interface Notifications {
  'source.sample': SourceSample;
  'destination.sample': DestinationSample;
}

/** Calls a method of a host's service. */
export function call<M extends Method>(
  rpc: RpcClient,
  method: M,
  params: Params<M>,
  options: RequestOptions = {},
): Promise<Results[M]> {
  return rpc.request<Results[M]>(method, params, options);
}
