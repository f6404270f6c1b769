/**
 * The command's side of the commit point: it watches (in `teleport` it also carries `go`), and when something fails, or
 * when it is `vmmig recover` and begins here, it finds out where the guest is and finishes the migration either way.
 * It holds no fact of its own, so it may die at any step, and any number of them may be at work.
 */
import { machine, type Table } from './machine.js';

export type ResolutionState =
  /** The migration goes on. */
  | 'watching'
  /** `teleport`: the source has been asked to hold. */
  | 'holding'
  /** `teleport`: `go` has been handed on. */
  | 'committing'
  /** The source has been asked to give up, if it still may. */
  | 'askingSource'
  | 'askingDestination'
  /** The guest runs on the destination: the source is told. */
  | 'releasing'
  /** The guest will never run on the destination: the source is told. */
  | 'resuming'
  /** The guest runs on the source: the destination is cleared. */
  | 'clearing'
  | ResolutionEnd;

export type ResolutionEnd =
  /** It runs on the destination, and the source has let go of it. */
  | 'moved'
  /** It runs on the destination; its paused remains on the source could not be ended. */
  | 'unreleased'
  /** It runs on the source. */
  | 'stayed'
  /** It will never run on the destination; that it runs on the source could not be confirmed. */
  | 'unconfirmed'
  /** Neither is known. */
  | 'unknown';

export type ResolutionEvent =
  /** `teleport`: the destination holds what the source has sent. */
  | 'complete'
  /** A failure, a lost session, the operator's wish to cancel. */
  | 'failed'
  /** No answer in time, or no way to ask. */
  | 'silent'
  | 'sourceHeld'
  | 'sourceResumed'
  | 'sourceReleased'
  | 'sourceFailed'
  | 'destinationRunning'
  | 'destinationRefused'
  | 'destinationUnknown';

export type ResolutionAction =
  /** To the source: `commit`. */
  | 'askToHold'
  /** To the destination: `go`. */
  | 'handOnGo'
  | 'sendAbandon'
  | 'sendAsk'
  | 'sendRelease'
  | 'sendResume';

export const resolutionTable: Table<ResolutionState, ResolutionEvent, ResolutionAction> = {
  watching: {
    complete: ['holding', 'askToHold'],
    failed: ['askingSource', 'sendAbandon'],
    sourceResumed: ['clearing', 'sendAsk'],
    destinationRunning: ['releasing', 'sendRelease'],
    destinationRefused: ['resuming', 'sendResume'],
  },
  holding: {
    sourceHeld: ['committing', 'handOnGo'],
    sourceResumed: ['clearing', 'sendAsk'],
    failed: ['askingSource', 'sendAbandon'],
    silent: ['askingSource', 'sendAbandon'],
  },
  committing: {
    destinationRunning: ['releasing', 'sendRelease'],
    destinationRefused: ['resuming', 'sendResume'],
    destinationUnknown: ['askingDestination', 'sendAsk'],
    failed: ['askingDestination', 'sendAsk'],
    silent: ['askingDestination', 'sendAsk'],
  },
  askingSource: {
    sourceResumed: ['clearing', 'sendAsk'],
    sourceHeld: ['askingDestination', 'sendAsk'],
    sourceReleased: ['askingDestination', 'sendAsk'],
    sourceFailed: ['askingDestination', 'sendAsk'],
    silent: ['askingDestination', 'sendAsk'],
  },
  askingDestination: {
    destinationRunning: ['releasing', 'sendRelease'],
    destinationRefused: ['resuming', 'sendResume'],
    destinationUnknown: ['unknown'],
    silent: ['unknown'],
  },
  releasing: {
    sourceReleased: ['moved'],
    sourceFailed: ['unreleased'],
    silent: ['unreleased'],
    // Both say that they have it: must not be, and is not for a program to put right.
    sourceResumed: ['unknown'],
  },
  resuming: {
    sourceResumed: ['stayed'],
    // The source's QEMU has ended: there is nothing left that could run.
    sourceReleased: ['unknown'],
    sourceFailed: ['unconfirmed'],
    silent: ['unconfirmed'],
  },
  clearing: {
    destinationRefused: ['stayed'],
    destinationUnknown: ['stayed'],
    silent: ['stayed'],
    destinationRunning: ['unknown'],
  },
  moved: {},
  unreleased: {},
  stayed: {},
  unconfirmed: {},
  unknown: {},
};

export const resolutionStep = machine(resolutionTable);

/** How `vmmig recover` begins. */
export const recovery = { state: 'askingSource', actions: ['sendAbandon'] } as const;

const ends: ReadonlySet<string> = new Set<ResolutionEnd>(['moved', 'unreleased', 'stayed', 'unconfirmed', 'unknown']);

export function isEnd(state: ResolutionState): state is ResolutionEnd {
  return ends.has(state);
}
