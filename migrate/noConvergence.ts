/** What is told of a guest that writes faster than the link takes, and what becomes of it. */
import type { Verdict } from './convergence.js';
import { VmmigError } from './errors.js';

/**
 * What to do: give up, the guest on the source; slow the guest down; stop it and take the time that takes; let it run on
 * the destination first; or go on as long as the operator likes.
 */
export const noConvergePolicies = ['cancel', 'throttle', 'stop-and-copy', 'switch', 'wait'] as const;
export type OnNoConverge = (typeof noConvergePolicies)[number];

/** What an operator expects who has not said anything: nothing that hurts the guest. */
export const defaultOnNoConverge: OnNoConverge = 'cancel';

/** What is written twice in a pass is counted once. */
const nearly = 0.85;
/** For a pass to leave much less than the one before. */
const ample = 1.5;

export interface Situation extends Verdict {
  readonly vm: string;
  /** As the guest would have to stand still now. */
  readonly downtimeMs: number;
  readonly maxDowntimeMs: number;
  /** Of that, what has nothing to do with what the guest writes. */
  readonly fixedMs: number;
  readonly wireBytesPerSecond: number;
}

/** The numbers. */
export function describeNoConvergence(situation: Situation): string {
  const { vm, passes, downtimeMs, maxDowntimeMs, wireBytesPerSecond, takesBytesPerSecond, remainingBytes } = situation;
  const stop = `it would have to stand still for ${duration(downtimeMs)}; ${duration(maxDowntimeMs)} are allowed`;
  if (isFixed(situation))
    return `however little ${vm} writes, ${stop}, and what has to happen meanwhile takes ${duration(situation.fixedMs)} alone`;
  const what = isOutrun(situation)
    ? 'writes faster than the link takes'
    : 'writes too much for the pause that it may have';
  return (
    `${vm} ${what}: each second ${megabytes(situation.dirtyBytesPerSecond)} of its memory or more get dirty, and the link ` +
    `takes ${megabytes(takesBytesPerSecond)} of it (${megabits(wireBytesPerSecond)}). After ${passes} passes ` +
    `${megabytes(remainingBytes)} are left, for which ${stop}`
  );
}

/** What would help. */
export function adviseNoConvergence(situation: Situation): string {
  const { downtimeMs, takesBytesPerSecond, wireBytesPerSecond, dirtyBytesPerSecond } = situation;
  const downtime = `--max-downtime ${downtimeOption(downtimeMs)}`;
  if (isFixed(situation)) return downtime;
  const needed = (dirtyBytesPerSecond / Math.max(1, takesBytesPerSecond)) * wireBytesPerSecond * ample;
  const link = isOutrun(situation) ? `, a link of ${megabits(needed)} or more` : '';
  return (
    `${downtime}${link}, a quieter time, or --on-no-converge throttle (slows the guest down), stop-and-copy (stops it for ` +
    'that long) or switch (its memory follows it)'
  );
}

export function noConvergence(situation: Situation): VmmigError {
  const text = `${describeNoConvergence(situation)}. What would help: ${adviseNoConvergence(situation)}`;
  return new VmmigError('VMMIG_NO_CONVERGE', text, { phase: 'precopy', retryable: true });
}

/** It is not what the guest writes. */
function isFixed({ fixedMs, maxDowntimeMs }: Situation): boolean {
  return fixedMs >= maxDowntimeMs;
}

function isOutrun({ dirtyBytesPerSecond, takesBytesPerSecond }: Situation): boolean {
  return dirtyBytesPerSecond >= nearly * takesBytesPerSecond;
}

/** Rounded up, to a value that would do. */
function downtimeOption(ms: number): string {
  return ms < 2_000 ? `${Math.ceil(ms / 50) * 50}ms` : `${Math.ceil((ms * 1.1) / 1000)}s`;
}

const duration = (ms: number) => (ms < 1_000 ? `${Math.ceil(ms)} ms` : `${(ms / 1000).toPrecision(2)} s`);
const megabytes = (bytes: number) => `${significant(bytes / 1e6)} MB`;
const megabits = (bytesPerSecond: number) => `${significant((bytesPerSecond * 8) / 1e6)} Mbit/s`;

function significant(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
}
