/**
 * A migration told by events alone, so that tests of the command line can have any course and any end on demand.
 * The guest has 1 GiB of memory.
 */
import type { FaultStatistics, ProgressEvent, PullProgress } from '../../../migrate/progress.js';
import { progressSchema } from '../../../migrate/progress.js';
import { type MigrationReport, type PhaseName, reportSchema } from '../../../migrate/report.js';

const pagesOfGuest = 262_144;

export function scriptedReport(change: Partial<MigrationReport> = {}): MigrationReport {
  return {
    schema: reportSchema,
    id: 'vm1-20261122-045107-7f3a',
    vm: 'vm1',
    from: 'hostA',
    to: 'hostB',
    mode: 'teleport',
    result: 'moved',
    vmLocation: 'destination',
    error: null,
    startedAt: '2026-11-22T04:51:07.000Z',
    totalMs: 2310,
    downtimeMs: 287,
    switchoverMs: 2100,
    releasedMs: 2305,
    exposureMs: null,
    capture: 'stream',
    recoveredAt: null,
    phases: [
      { name: 'preflight', startMs: 0, ms: 120 },
      { name: 'prepare destination', startMs: 120, ms: 410 },
      { name: 'scan', startMs: 130, ms: 45 },
      { name: 'precopy', startMs: 530, ms: 1300 },
      { name: 'switch-over', startMs: 1830, ms: 120 },
      { name: 'restore', startMs: 600, ms: 1350 },
      { name: 'verify', startMs: 1950, ms: 80 },
      { name: 'release source', startMs: 2100, ms: 205 },
    ],
    bytes: { wire: 41_200_000, stream: 521_000_000, restored: 421_000_000 },
    pages: { seen: 262_400, zero: 148_700, teleported: 102_400, sent: 11_300, mismatched: 12, faulted: 0 },
    agent: { via: 'port', scanMs: 45, pages: 102_812, scans: 2, skipped: { dirty: 120, deleted: 3 } },
    link: { connections: 4, rttMs: 40.3, reconnects: 0 },
    faults: null,
    verified: true,
    findings: [],
    opaqueSections: [],
    ...change,
  };
}

export const startEvent: ProgressEvent = {
  type: 'start',
  schema: progressSchema,
  id: 'vm1-20261122-045107-7f3a',
  vm: 'vm1',
  from: 'hostA',
  to: 'hostB',
  mode: 'teleport',
  at: '2026-11-22T04:51:07.000Z',
};

export function phaseEvent(name: PhaseName, state: 'begin' | 'end', atMs: number, detail?: string): ProgressEvent {
  return { type: 'phase', name, state, atMs, ...(detail === undefined ? {} : { detail }) };
}

/** `done` runs from 0 to 1. */
export function sampleEvent(atMs: number, done: number): ProgressEvent {
  const pages = (share: number): number => Math.floor(pagesOfGuest * share * done);
  return {
    type: 'sample',
    atMs,
    phase: 'precopy',
    totalPages: pagesOfGuest,
    pages: { zero: pages(0.5), teleported: pages(0.4), sent: pages(0.1), restored: pages(0.3), mismatched: 0 },
    bytes: { wire: Math.floor(40e6 * done), stream: Math.floor(521e6 * done), restored: pages(0.3) * 4096 },
    wireBps: 198_000_000,
    dirtyBytesPerSecond: atMs < 200 ? null : 2_200_000,
    remainingBytes: Math.floor(2 ** 30 * (1 - done)),
    etaMs: atMs < 200 ? null : 4000 * (1 - done),
  };
}

const waits = { p50Ms: 41, p90Ms: 44, p99Ms: 80, maxMs: 120 };

export const faultStatistics: FaultStatistics = {
  ...waits,
  count: 1204,
  perSecond: 212,
  waiting: 2,
  answers: {
    zero: { count: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, maxMs: 0 },
    local: { count: 204, p50Ms: 0.04, p90Ms: 1.2, p99Ms: 2, maxMs: 3 },
    remote: { ...waits, count: 1000, p50Ms: 42 },
  },
};

/** The guest runs on hostB, and part of its memory is still on hostA. */
export function pullSample(
  atMs: number,
  change: Partial<PullProgress> = {},
): Extract<ProgressEvent, { type: 'sample' }> {
  const pull: PullProgress = {
    runningMs: 3_000,
    neededBytes: 123 * 2 ** 20,
    missingPages: pagesOfGuest / 4,
    faults: faultStatistics,
    isConnected: true,
    reconnects: 0,
    ...change,
  };
  return { ...(sampleEvent(atMs, 0.75) as Extract<ProgressEvent, { type: 'sample' }>), phase: 'pull', pull };
}

/** The whole course of a migration that succeeds, in order. */
export function* course(report: MigrationReport = scriptedReport()): Generator<ProgressEvent> {
  yield startEvent;
  yield phaseEvent('preflight', 'begin', 0);
  yield phaseEvent('preflight', 'end', 120);
  yield phaseEvent('prepare destination', 'begin', 120);
  yield phaseEvent('scan', 'begin', 130);
  yield phaseEvent('scan', 'end', 175, '102,812 cached pages in 2 file systems');
  yield phaseEvent('prepare destination', 'end', 530);
  yield phaseEvent('precopy', 'begin', 530);
  for (let step = 0; step <= 40; step++) yield sampleEvent(530 + step * 100, step / 40);
  yield { type: 'notice', severity: 'warn', atMs: 1500, code: 'VMMIG_TEST', message: 'the guest writes fast' };
  yield phaseEvent('precopy', 'end', 4600);
  yield phaseEvent('switch-over', 'begin', 4600);
  yield phaseEvent('switch-over', 'end', 4720);
  yield phaseEvent('verify', 'begin', 4720);
  yield phaseEvent('verify', 'end', 4800);
  yield phaseEvent('release source', 'begin', 4800);
  yield phaseEvent('release source', 'end', 5000);
  yield { type: 'end', report };
}
