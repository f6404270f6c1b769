/**
 * The report: the document every migration leaves behind, whatever became of it.
 * Scripts rely on it, so fields may be added and never renamed.
 */

import type { AgentRoute, FaultStatistics } from '../host-service/protocol.js';

export const reportSchema = 'vmmig.report/1';

export const migrationModes = ['teleport', 'switch'] as const;
export type MigrationMode = (typeof migrationModes)[number];
export type MigrationResult = 'moved' | 'failed' | 'cancelled' | 'refused' | 'interrupted' | 'unknown';
export type VmLocation = 'source' | 'destination' | 'unknown';

/** The phases in the order in which they begin. */
export const phaseNames = [
  'preflight',
  'prepare destination',
  'scan',
  'precopy',
  'switch-over',
  'restore',
  'verify',
  'release source',
  'pull',
] as const;
export type PhaseName = (typeof phaseNames)[number];

const phasesOfOneMode: Partial<Record<PhaseName, MigrationMode>> = {
  restore: 'teleport',
  verify: 'teleport',
  'release source': 'teleport',
  pull: 'switch',
};

/** The phases that a migration of this mode goes through. */
export function phasesOf(mode: MigrationMode): readonly PhaseName[] {
  return phaseNames.filter((name) => (phasesOfOneMode[name] ?? mode) === mode);
}

export interface PhaseTiming {
  readonly name: PhaseName;
  /** Since the command's start. Phases may overlap. */
  readonly startMs: number;
  readonly ms: number;
}

export interface ReportError {
  readonly code: string;
  readonly message: string;
  readonly phase: PhaseName | null;
  readonly retryable: boolean;
}

/** Something preflight found; `refuse` stops the migration before anything is changed. */
export interface Finding {
  readonly severity: 'refuse' | 'warn';
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

export interface MigrationReport {
  readonly schema: typeof reportSchema;
  readonly id: string;
  readonly vm: string;
  readonly from: string;
  readonly to: string;
  readonly mode: MigrationMode;
  readonly result: MigrationResult;
  readonly vmLocation: VmLocation;
  readonly error: ReportError | null;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly totalMs: number;
  /** From the guest's stop on the source to its start on the destination. */
  readonly downtimeMs: number;
  /** From the command's start to the guest running on the destination. */
  readonly switchoverMs: number;
  /** From the command's start until the source host holds nothing of the guest. */
  readonly releasedMs: number;
  /** How long the guest ran with part of its memory on the source only; null for a teleport, and while it does. */
  readonly exposureMs: number | null;
  /** ISO 8601, UTC: when `vmmig recover` brought the migration to its end; null for one that needed none. */
  readonly recoveredAt: string | null;
  readonly phases: readonly PhaseTiming[];
  /**
   * How vmmig got the guest's memory: through QEMU's migration stream, or from the shared file that it is kept in; null
   * when it never came to that.
   */
  readonly capture: 'stream' | 'memory file' | null;
  readonly bytes: {
    /** What crossed the network in both directions, framing, encryption and control included. */
    readonly wire: number;
    /** What the source QEMU wrote into its migration stream. */
    readonly stream: number;
    /** What the destination read from its disk image. */
    readonly restored: number;
  };
  readonly pages: {
    readonly seen: number;
    readonly zero: number;
    readonly teleported: number;
    readonly sent: number;
    readonly mismatched: number;
    readonly faulted: number;
  };
  /** The guest agent's part; null when the guest has none that answers. */
  readonly agent: {
    /** Over its own port, or brought into the guest by qemu-guest-agent. */
    readonly via: AgentRoute;
    readonly scanMs: number;
    readonly pages: number;
    readonly scans: number;
    /** Cached pages that cannot be teleported, by reason. */
    readonly skipped: Readonly<Record<string, number>>;
  } | null;
  readonly link: { readonly connections: number; readonly rttMs: number; readonly reconnects: number };
  /** How long the guest waited for memory that it touched after a switch; null for a teleport. */
  readonly faults: FaultStatistics | null;
  /** Whether the digest roots of both sides were compared and equal; null when it never came to that. */
  readonly verified: boolean | null;
  /** What preflight found. */
  readonly findings: readonly Finding[];
  /** Sections of the migration stream that were relayed without being understood. */
  readonly opaqueSections: readonly string[];
}

/** Exit codes say where the guest is. */
export const exitCodes = {
  moved: 0,
  failed: 1,
  usage: 2,
  cancelled: 3,
  unreachable: 4,
  refused: 5,
  interrupted: 6,
  unknown: 7,
} as const;

/** The exit code of a finished migration. */
export function exitCodeOf(report: Pick<MigrationReport, 'result' | 'error'>): number {
  if (report.result === 'failed' && report.error !== null && isUnreachable(report.error)) return exitCodes.unreachable;
  return exitCodes[report.result];
}

/** What keeps vmmig from using a host at all. */
const unreachableCodes = /^VMMIG_(SSH_\w+|HOST_(COMMAND|TIMEOUT|NO_VMMIG|INCOMPATIBLE|SERVICE_ENDED))$/;

/** A host that cannot be reached before anything was changed has its own exit code. */
function isUnreachable(error: ReportError): boolean {
  return error.phase === 'preflight' && unreachableCodes.test(error.code);
}
