/** Collects what happens during a migration: tells it as progress, and becomes the report. */
import type { VmmigError } from './errors.js';
import type { Journal } from './journal.js';
import type { ProgressEvent, SampleEvent } from './progress.js';
import { progressSchema } from './progress.js';
import {
  type Finding,
  type MigrationReport,
  type MigrationResult,
  type PhaseName,
  type PhaseTiming,
  reportSchema,
  type VmLocation,
} from './report.js';

export interface RecorderStart {
  readonly id: string;
  readonly vm: string;
  readonly from: string;
  readonly to: string;
  readonly mode: MigrationReport['mode'];
}

/** What the policy fills in as it learns it. */
export type Facts = Pick<
  MigrationReport,
  | 'downtimeMs'
  | 'switchoverMs'
  | 'releasedMs'
  | 'exposureMs'
  | 'capture'
  | 'bytes'
  | 'pages'
  | 'agent'
  | 'link'
  | 'faults'
  | 'verified'
  | 'opaqueSections'
>;

const nothingYet: Facts = {
  downtimeMs: 0,
  switchoverMs: 0,
  releasedMs: 0,
  exposureMs: null,
  capture: null,
  bytes: { wire: 0, stream: 0, restored: 0 },
  pages: { seen: 0, zero: 0, teleported: 0, sent: 0, mismatched: 0, faulted: 0 },
  agent: null,
  link: { connections: 0, rttMs: 0, reconnects: 0 },
  faults: null,
  verified: null,
  opaqueSections: [],
};

export class Recorder {
  #start: RecorderStart;
  readonly #journal: Journal;
  readonly #onProgress: (event: ProgressEvent) => void;
  readonly #startedAt = new Date();
  readonly #startedAtMs: number;
  readonly #phases: PhaseTiming[] = [];
  readonly #open: PhaseName[] = [];
  facts: Facts = nothingYet;
  findings: readonly Finding[] = [];

  readonly #complete: (report: MigrationReport) => MigrationReport;

  /**
   * @param startedAtMs - when the command started, by `performance.now()`
   * @param complete - of a recovery: adds to its report what is known of the migration from before
   */
  constructor(
    start: RecorderStart,
    journal: Journal,
    onProgress: (event: ProgressEvent) => void,
    startedAtMs: number,
    complete: ((report: MigrationReport) => MigrationReport) | null = null,
  ) {
    this.#start = start;
    this.#complete = complete ?? ((report) => report);
    this.#journal = journal;
    this.#onProgress = onProgress;
    this.#startedAtMs = startedAtMs;
    const { mode, id, vm, from, to } = start;
    const at = this.#startedAt.toISOString();
    onProgress({ type: 'start', schema: progressSchema, id, vm, from, to, mode, at });
  }

  /** The guest was found, perhaps elsewhere than expected. */
  locatedAt(host: string): void {
    if (host === this.#start.from) return;
    this.#start = { ...this.#start, from: host };
    this.#onProgress({ type: 'located', from: host, atMs: this.elapsedMs });
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAtMs;
  }

  /** The innermost phase that has begun and not ended. */
  get phase(): PhaseName | null {
    return this.#open.at(-1) ?? null;
  }

  /**
   * Runs one phase: journalled, timed, told.
   * @param work - returns what the phase came to, for people
   */
  async during<T>(name: PhaseName, work: () => Promise<T>, detail?: (result: T) => string): Promise<T> {
    const startMs = this.elapsedMs;
    this.#open.push(name);
    this.#onProgress({ type: 'phase', name, state: 'begin', atMs: startMs });
    void this.#journal.write('phase', { name, state: 'begin' });
    try {
      const result = await work();
      const text = detail?.(result);
      this.#end(name, startMs, text === undefined ? {} : { detail: text });
      return result;
    } catch (thrown) {
      this.failedPhase ??= name;
      this.#end(name, startMs, { failed: true });
      throw thrown;
    }
  }

  /** The phase in which the first failure was noticed. */
  failedPhase: PhaseName | null = null;

  #end(name: PhaseName, startMs: number, outcome: { detail?: string; failed?: true }): void {
    const atMs = this.elapsedMs;
    this.#open.splice(this.#open.lastIndexOf(name), 1);
    this.#phases.push({ name, startMs: Math.round(startMs), ms: Math.round(atMs - startMs) });
    this.#onProgress({ type: 'phase', name, state: 'end', atMs, ...outcome });
    void this.#journal.write('phase', { name, state: 'end' });
  }

  sample(sample: Omit<SampleEvent, 'type' | 'atMs' | 'phase'>): void {
    this.#onProgress({ type: 'sample', atMs: this.elapsedMs, phase: this.phase ?? 'precopy', ...sample });
  }

  notice(severity: 'info' | 'warn', code: string, message: string): void {
    this.#onProgress({ type: 'notice', severity, atMs: this.elapsedMs, code, message });
  }

  /** Writes the report, tells it, and returns it. */
  async finish(result: MigrationResult, vmLocation: VmLocation, error: VmmigError | null): Promise<MigrationReport> {
    const report = this.#complete({
      schema: reportSchema,
      ...this.#start,
      result,
      vmLocation,
      error:
        error === null
          ? null
          : { code: error.code, message: error.message, phase: error.phase, retryable: error.retryable },
      startedAt: this.#startedAt.toISOString(),
      totalMs: Math.round(this.elapsedMs),
      phases: this.#phases.toSorted((left, right) => left.startMs - right.startMs),
      ...this.facts,
      recoveredAt: null,
      findings: this.findings,
    });
    await this.#journal.writeDurably('end', { result, vmLocation });
    await this.#journal.writeReport(report);
    this.#onProgress({ type: 'end', report });
    return report;
  }
}
