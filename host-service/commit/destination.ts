/**
 * The destination's side of the commit point: the guest does not run before it may (`go`), can (`loaded`), and the
 * decision that it does is on disk. Whoever asks after it gets a yes, or a no that holds for good.
 *
 * `teleport` loads first and gets `go` then; `switch` gets `go` with the device state, and loads it then.
 */
import { machine, type Table } from './machine.js';

export type DestinationState =
  /** QEMU waits for the guest. */
  | 'loading'
  /** QEMU holds the whole guest, paused. */
  | 'loaded'
  /** The guest may run; QEMU has not loaded it yet. */
  | 'permitted'
  /** The decision `run` is being written. */
  | 'deciding'
  | 'starting'
  | 'running'
  /** The decision `run` stands; what became of the guest has to be looked up. */
  | 'doubtful'
  | 'looking'
  /** Nothing was decided, and this is not the service that may let the guest run. */
  | 'orphaned'
  /** The decision `end` is being written. */
  | 'closing'
  | 'ending'
  /** QEMU is not to run the guest, and could not be ended. */
  | 'unended'
  | 'ended';

export type DestinationEvent =
  /** The source has given its permission. */
  | 'go'
  | 'loaded'
  /** QEMU cannot load the guest, or has ended. */
  | 'failed'
  /** Give up: a lost session, a lost link, a cancelled or failed migration. From `go` on it changes nothing. */
  | 'abandon'
  /** Does the guest run? If not, it must not from now on. */
  | 'ask'
  /** The link was lost, and is there again. */
  | 'linkBack'
  // What became of the actions:
  | 'wroteRun'
  | 'wroteEnd'
  /** The other decision had been written before. */
  | 'runStands'
  | 'endStands'
  | 'writeFailed'
  | 'guestStarted'
  /** QEMU has said no: the guest has not run. */
  | 'startRefused'
  /** QEMU has not answered. */
  | 'startSilent'
  | 'guestRuns'
  | 'guestWaits'
  | 'guestGone'
  | 'qemuEnded'
  | 'endFailed';

export type DestinationAction =
  /** Decide for good that the guest runs here, on disk. */
  | 'writeRun'
  /** Decide for good that it does not, on disk. */
  | 'writeEnd'
  /** From here on QEMU outlives its service. */
  | 'releaseGuard'
  | 'startGuest'
  | 'lookAtGuest'
  | 'endQemu'
  /** Answers to the source and to whoever has asked. */
  | 'tellRunning'
  | 'tellRefused'
  | 'tellUnknown';

export const destinationTable: Table<DestinationState, DestinationEvent, DestinationAction> = {
  loading: {
    go: ['permitted'],
    loaded: ['loaded'],
    failed: ['ending', 'endQemu'],
    abandon: ['ending', 'endQemu'],
    ask: ['ending', 'endQemu'],
  },
  loaded: {
    go: ['deciding', 'writeRun'],
    failed: ['ending', 'endQemu'],
    abandon: ['ending', 'endQemu'],
    ask: ['ending', 'endQemu'],
  },
  permitted: {
    loaded: ['deciding', 'writeRun'],
    failed: ['ending', 'endQemu'],
    ask: ['ending', 'endQemu'],
  },
  deciding: {
    wroteRun: ['starting', 'releaseGuard', 'startGuest'],
    endStands: ['ending', 'endQemu'],
    // The decision may be on disk all the same. Who finds it, and no QEMU, will say that it does not know.
    writeFailed: ['ending', 'endQemu'],
  },
  starting: {
    guestStarted: ['running', 'tellRunning'],
    startRefused: ['ending', 'endQemu'],
    startSilent: ['doubtful', 'tellUnknown'],
  },
  running: {
    go: ['running', 'tellRunning'],
    ask: ['running', 'tellRunning'],
    linkBack: ['running', 'tellRunning'],
    failed: ['doubtful'],
  },
  doubtful: {
    ask: ['looking', 'lookAtGuest'],
  },
  looking: {
    guestRuns: ['running', 'tellRunning'],
    // It was decided that the guest runs here, and it has not begun: that is made up for.
    guestWaits: ['starting', 'startGuest'],
    guestGone: ['doubtful', 'tellUnknown'],
  },
  orphaned: {
    // The service that loaded the guest may be alive and about to let it run: the decision settles who is first.
    ask: ['closing', 'writeEnd'],
  },
  closing: {
    wroteEnd: ['ending', 'endQemu'],
    runStands: ['looking', 'lookAtGuest'],
    writeFailed: ['orphaned', 'tellUnknown'],
  },
  ending: {
    qemuEnded: ['ended', 'tellRefused'],
    endFailed: ['unended', 'tellUnknown'],
  },
  unended: {
    ask: ['ending', 'endQemu'],
  },
  ended: {
    go: ['ended', 'tellRefused'],
    ask: ['ended', 'tellRefused'],
    linkBack: ['ended', 'tellRefused'],
  },
};

export const destinationStep = machine(destinationTable);

/** What a service that was not there before finds on the destination host. A decision that cannot be read counts as `run`. */
export interface DestinationFacts {
  /**
   * The host has been up since the migration began and has its ledger. Otherwise nothing that is missing means
   * anything: the guest may have run, and gone down with the host.
   */
  readonly remembers: boolean;
  readonly decision: 'run' | 'end' | null;
  /** `waiting`: loaded or loading, and has never run. `silent`: QEMU is there and does not answer. */
  readonly guest: 'waiting' | 'running' | 'silent' | 'gone';
}

/** Where a service begins that finds a migration which another one left. */
export function destinationFrom({ remembers, decision, guest }: DestinationFacts): DestinationState {
  if (guest === 'running') return 'running';
  // Without that decision not even a QEMU that does not answer can have run it.
  if (!remembers || decision === 'run') return 'doubtful';
  if (guest === 'gone') return 'ended';
  return decision === 'end' ? 'unended' : 'orphaned';
}
