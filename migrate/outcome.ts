/** What a migration came to, as the report and the exit code say it: nothing that is not known to be so. */

import { exitCodes, type MigrationResult, type VmLocation } from './report.js';
import type { End } from './resolve.js';

export interface Known {
  readonly end: End;
  /** The operator wanted it given up. */
  readonly cancelled: boolean;
  /** The source was asked to commit, so it may be waiting to be told. Before that it resumes by itself. */
  readonly mayBeHeld: boolean;
  /** The destination holds all of the guest's memory. */
  readonly complete: boolean;
}

export interface Outcome {
  readonly vmLocation: VmLocation;
  readonly result: MigrationResult;
  readonly exitCode: number;
}

/** Where the guest is, and the exit code that says so: 0 or 6, 1 or 3, 7. */
export function outcome(known: Known): Outcome {
  const vmLocation = locationOf(known);
  const result = resultAt(vmLocation, known);
  return { vmLocation, result, exitCode: exitCodes[result] };
}

function locationOf({ end, mayBeHeld }: Known): VmLocation {
  if (end === 'moved' || end === 'unreleased') return 'destination';
  if (end === 'ended') return 'unknown';
  // A source that was never asked to commit resumes, whether it can be asked about it or not.
  if (end === 'stayed' || !mayBeHeld) return 'source';
  return 'unknown';
}

function resultAt(vmLocation: VmLocation, { cancelled, complete }: Known): MigrationResult {
  if (vmLocation === 'unknown') return 'unknown';
  if (vmLocation === 'destination') return complete ? 'moved' : 'interrupted';
  return cancelled ? 'cancelled' : 'failed';
}
