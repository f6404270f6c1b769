/**
 * What a running migration tells: one event type for every renderer. As NDJSON it is the
 * `rawjson` progress format, so fields may be added and never renamed.
 */
import type { FaultStatistics } from '../host-service/protocol.js';

export type { FaultStatistics };

import type { MigrationMode, MigrationReport, PhaseName } from './report.js';

export const progressSchema = 'vmmig.progress/1';

export interface StartEvent {
  readonly type: 'start';
  readonly schema: typeof progressSchema;
  readonly id: string;
  readonly vm: string;
  /** Where the guest is expected, as long as no `located` says better. */
  readonly from: string;
  readonly to: string;
  readonly mode: MigrationMode;
  /** ISO 8601, UTC. */
  readonly at: string;
}

/** The guest was found on another host than was expected at the start. */
export interface LocatedEvent {
  readonly type: 'located';
  readonly from: string;
  readonly atMs: number;
}

export interface PhaseEvent {
  readonly type: 'phase';
  readonly name: PhaseName;
  readonly state: 'begin' | 'end';
  /** Since the command's start. */
  readonly atMs: number;
  /** How the phase ended, for people: `26,114 cached pages in 4 files systems`. */
  readonly detail?: string;
  /** It ended because something failed. */
  readonly failed?: true;
}

/** About ten a second while pages move. Counters only grow. */
export interface SampleEvent {
  readonly type: 'sample';
  readonly atMs: number;
  readonly phase: PhaseName;
  /** Pages of guest memory in all. */
  readonly totalPages: number;
  readonly pages: {
    readonly zero: number;
    readonly teleported: number;
    readonly sent: number;
    readonly restored: number;
    readonly mismatched: number;
  };
  readonly bytes: { readonly wire: number; readonly stream: number; readonly restored: number };
  readonly wireBps: number;
  /** Bytes of memory the guest dirties each second; null before QEMU has measured it. */
  readonly dirtyBytesPerSecond: number | null;
  /** What QEMU says is still to be read. */
  readonly remainingBytes: number;
  /** Until the guest runs on the destination, after the switch until all of its memory is there; null while no honest estimate can be made. */
  readonly etaMs: number | null;
  /** Of the guest's processors' time, what is taken from it so that it writes less; left out when nothing is. */
  readonly throttlePercent?: number;
  /** Of a switch, once the guest runs on the destination. */
  readonly pull?: PullProgress;
}

/** How a guest fares whose memory is on two hosts. */
export interface PullProgress {
  /** Since the guest runs on the destination. */
  readonly runningMs: number;
  /** Memory that only the source has. */
  readonly neededBytes: number;
  /** Pages that the guest would have to wait for, those on the destination's disk included. */
  readonly missingPages: number;
  readonly faults: FaultStatistics | null;
  /** Whether the relays are connected; while they are not, the guest waits for what only the source has. */
  readonly isConnected: boolean;
  readonly reconnects: number;
}

export interface NoticeEvent {
  readonly type: 'notice';
  readonly severity: 'info' | 'warn';
  readonly atMs: number;
  readonly code: string;
  readonly message: string;
}

/** The last event of every migration. */
export interface EndEvent {
  readonly type: 'end';
  readonly report: MigrationReport;
}

export type ProgressEvent = StartEvent | LocatedEvent | PhaseEvent | SampleEvent | NoticeEvent | EndEvent;
