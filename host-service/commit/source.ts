/**
 * The source's side of the commit point: until `go` may have been sent, whatever fails lets the guest run here again;
 * from then on it stays paused until it is *known* that it does not, and will not, run on the destination.
 *
 * `switch` sends `go` over the link to the destination's relay. `teleport` gives it to the command, which hands it on:
 * there `commit` is `source.hold`, and carrying out `sendGo` is answering that call.
 */
import { machine, type Table } from './machine.js';

export type SourceState =
  /** The guest runs here, and is being copied. */
  | 'running'
  /** It has been stopped, and all that the destination needs is ready. */
  | 'stopped'
  /** The decision `held` is being written. */
  | 'holding'
  /** `go` has been sent, or is about to be. */
  | 'held'
  /** Held, by a service that is not there any more: whether it sent `go` is not known. */
  | 'inDoubt'
  /** Nothing was decided, and this is not the service that may send `go`. */
  | 'orphaned'
  /** The decision `kept` is being written. */
  | 'keeping'
  /** It belongs here, and could not be made to run. */
  | 'kept'
  | 'resuming'
  | 'resumed'
  | 'releasing'
  /** QEMU has ended. Pages that the destination still needs may be here; the guest is not. */
  | 'released';

export type SourceEvent =
  | 'guestStopped'
  /** Everything is ready: the destination may be let run the guest. */
  | 'commit'
  /** Give up: a lost session, a lost link, a cancelled or failed migration. From `held` on it is only answered. */
  | 'abandon'
  /** The destination says that the guest runs there. */
  | 'running'
  /** The destination says that the guest has not run there, and never will. */
  | 'refused'
  /** Likewise, from a command that has asked the destination. */
  | 'release'
  | 'resume'
  /** The link was lost, and is there again. */
  | 'linkBack'
  // What became of the actions:
  | 'wroteHeld'
  | 'wroteKept'
  /** The other decision had been written before. */
  | 'heldStands'
  | 'keptStands'
  | 'writeFailed'
  | 'guestResumed'
  | 'resumeFailed'
  | 'qemuEnded'
  | 'endFailed';

export type SourceAction =
  /** Decide for good that the guest may go, on disk. */
  | 'writeHeld'
  /** Decide for good that it does not go, on disk. */
  | 'writeKept'
  | 'sendGo'
  | 'resumeGuest'
  /** Answered with `endFailed`, undone, where QEMU is the last to hold pages that the destination still needs. */
  | 'endQemu'
  /** Answers to whoever has asked. */
  | 'tellHeld'
  | 'tellResumed'
  | 'tellReleased'
  /** It could not be done; asking again may help. */
  | 'tellFailed';

export const sourceTable: Table<SourceState, SourceEvent, SourceAction> = {
  running: {
    guestStopped: ['stopped'],
    abandon: ['resuming', 'resumeGuest'],
    resume: ['resuming', 'resumeGuest'],
  },
  stopped: {
    commit: ['holding', 'writeHeld'],
    abandon: ['resuming', 'resumeGuest'],
    resume: ['resuming', 'resumeGuest'],
  },
  holding: {
    wroteHeld: ['held', 'sendGo'],
    keptStands: ['resuming', 'resumeGuest'],
    // The decision may be on disk all the same. That is safe: only this service sends `go`, and it has not.
    writeFailed: ['resuming', 'resumeGuest'],
  },
  held: {
    running: ['releasing', 'endQemu'],
    release: ['releasing', 'endQemu'],
    refused: ['resuming', 'resumeGuest'],
    resume: ['resuming', 'resumeGuest'],
    abandon: ['held', 'tellHeld'],
    linkBack: ['held', 'sendGo'],
  },
  inDoubt: {
    running: ['releasing', 'endQemu'],
    release: ['releasing', 'endQemu'],
    refused: ['resuming', 'resumeGuest'],
    resume: ['resuming', 'resumeGuest'],
    abandon: ['inDoubt', 'tellHeld'],
  },
  orphaned: {
    // The service that copied the guest may be alive and about to send `go`: the decision settles who is first.
    abandon: ['keeping', 'writeKept'],
    resume: ['resuming', 'resumeGuest'],
  },
  keeping: {
    wroteKept: ['resuming', 'resumeGuest'],
    heldStands: ['inDoubt', 'tellHeld'],
    writeFailed: ['orphaned', 'tellFailed'],
  },
  kept: {
    abandon: ['resuming', 'resumeGuest'],
    resume: ['resuming', 'resumeGuest'],
  },
  resuming: {
    guestResumed: ['resumed', 'tellResumed'],
    resumeFailed: ['kept', 'tellFailed'],
  },
  resumed: {
    abandon: ['resumed', 'tellResumed'],
    resume: ['resumed', 'tellResumed'],
    // A guest that runs here is not ended, whoever asks.
    release: ['resumed', 'tellResumed'],
  },
  releasing: {
    qemuEnded: ['released', 'tellReleased'],
    endFailed: ['inDoubt', 'tellFailed'],
  },
  released: {
    abandon: ['released', 'tellReleased'],
    resume: ['released', 'tellReleased'],
    release: ['released', 'tellReleased'],
  },
};

export const sourceStep = machine(sourceTable);

/** What a service that was not there before finds on the source host. A decision that cannot be read counts as `held`. */
export interface SourceFacts {
  readonly decision: 'held' | 'kept' | null;
  /** QEMU's guest: `paused` also when it has been migrated away. */
  readonly guest: 'running' | 'paused' | 'gone';
}

/** Where a service begins that finds a migration which another one left. */
export function sourceFrom({ decision, guest }: SourceFacts): SourceState {
  if (guest === 'gone') return 'released';
  if (decision === null) return 'orphaned';
  // Only who knew that it may has let it run again.
  if (guest === 'running') return 'resumed';
  return decision === 'held' ? 'inDoubt' : 'kept';
}
