/** What callers ask of `migrate/`, and what they get besides the report. */
import type { AgentRoute, Check } from '../host-service/protocol.js';
import type { OnNoConverge } from './noConvergence.js';
import type { ProgressEvent } from './progress.js';
import type { Finding, MigrationMode, MigrationReport, MigrationResult, ReportError } from './report.js';

export type { Check };

export interface MigrateRequest {
  readonly vm: string;
  /** A host of the inventory, or any SSH destination. */
  readonly to: string;
  /** Where the guest runs now; found out when left open. */
  readonly from?: string;
  readonly inventoryPath?: string;
  /** Cap on what the relays send, in bits a second. */
  readonly bandwidthBps?: number;
  readonly maxDowntimeMs?: number;
  /** Of a teleport, when the guest writes faster than the link takes. Default `cancel`. */
  readonly onNoConverge?: OnNoConverge;
  /** The whole migration, up to the commit point. */
  readonly timeoutMs?: number;
  /** So long the relays look for each other when the network fails before the commit point; 0: not at all. */
  readonly reconnectTimeoutMs?: number;
  /** Connections between the relays. */
  readonly connections?: number;
  /** Ask the guest agent for its cache map. Default true. */
  readonly agent?: boolean;
  /** Compress what has to be sent. Default true. */
  readonly compress?: boolean;
  /** Of a guest that libvirt manages; as in `virsh migrate`. */
  readonly domain?: DomainRequest;
}

export interface DomainRequest {
  /** Keep its configuration on the destination. */
  readonly persistent: boolean;
  /** Drop its configuration on the source. */
  readonly undefineSource: boolean;
  /** Its name on the destination. */
  readonly destinationName?: string;
  /** A file here with its XML for the destination. */
  readonly destinationXml?: string;
  /** Also when libvirt holds it to be unsafe. */
  readonly unsafe: boolean;
}

export interface SwitchRequest extends MigrateRequest {
  /** So many milliseconds after the start of the first pass; when nearly everything has been sent; or at once. */
  readonly after: number | 'converged' | 'now';
  /**
   * Of what the guest has used lately, 0 to 1, that is to be on its way to the destination before the guest is stopped; when
   * left open, so much as the link takes by then.
   */
  readonly prefetchShare?: number;
  /** Of memory on the source host, for what is not sent yet; a share of what is free there, when left open. */
  readonly pageStoreLimitBytes?: number;
  /** Let what exceeds it go to a file in the source host's state directory. */
  readonly spill: boolean;
  /** So long each relay looks for the other after the switch. */
  readonly reconnectTimeoutMs: number;
  /** Do not switch when pulling the rest would take longer. */
  readonly maxExposureMs?: number;
}

export interface Hooks {
  readonly onProgress?: (event: ProgressEvent) => void;
  /** Aborting cancels, as long as the migration can still be cancelled. */
  readonly signal?: AbortSignal;
  /** Aborting ends the command while the guest's memory is being pulled, which goes on by itself. */
  readonly leave?: AbortSignal;
  /** When the command started, by `performance.now()`; now, when left open. */
  readonly startedAtMs?: number;
}

export interface PreflightReport {
  readonly schema: 'vmmig.preflight/1';
  readonly vm: string;
  readonly from: string;
  readonly to: string;
  readonly mode: MigrationMode;
  readonly result: 'ready' | 'refused' | 'unreachable';
  readonly error: ReportError | null;
  readonly findings: readonly Finding[];
  /** What a migration would find now; null when the guest could not be asked. */
  readonly estimate: {
    readonly memoryBytes: number;
    readonly teleportableBytes: number | null;
    /** Without an agent: the guest's page cache by its own count; null where that is not known either. */
    readonly pageCacheBytes: number | null;
    readonly rttMs: number;
  } | null;
}

export interface CancelResult {
  readonly id: string;
  readonly result: MigrationResult;
  readonly report: MigrationReport | null;
}

export interface GuestListing {
  readonly vm: string;
  /** Where it runs; null when no host knows it. */
  readonly host: string | null;
  /** QEMU's run state, `off`, or `unknown`. */
  readonly state: string;
  readonly memoryBytes: number | null;
  /** Whether one answers; null when that is not known. */
  readonly agent: boolean | null;
  /** How it is reached. */
  readonly agentVia: AgentRoute | null;
  /** The id of the migration that is moving it from this machine. */
  readonly migration: string | null;
  readonly problem: string | null;
}

export interface GuestList {
  readonly schema: 'vmmig.list/1';
  readonly guests: readonly GuestListing[];
}

export interface DoctorReport {
  readonly schema: 'vmmig.doctor/1';
  readonly checks: readonly Check[];
}

export interface HostCheck {
  readonly schema: 'vmmig.host/1';
  readonly host: string;
  readonly reachable: boolean;
  readonly rttMs: number | null;
  readonly checks: readonly Check[];
}

export interface ScanReport {
  readonly schema: 'vmmig.scan/1';
  readonly vm: string;
  readonly host: string;
  /** How the agent was reached. */
  readonly via: AgentRoute;
  readonly scanMs: number;
  readonly pages: number;
  readonly runs: number;
  readonly bytes: number;
  readonly disks: readonly {
    readonly index: number;
    readonly name: string;
    readonly serial: string;
    readonly sizeBytes: number;
    readonly pciAddress: string | null;
    readonly pages: number;
  }[];
  readonly skipped: Readonly<Record<string, number>>;
}
