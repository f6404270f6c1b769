/** The source's side of the commit point, carried out upon the guest that is being moved from this host. */
import {
  decideAtSource,
  type LedgerChanges,
  type SourceAction,
  type SourceEvent,
  type SourceState,
  sourceStep,
  updateLedger,
} from './commit/index.js';
import { CommitDriver } from './commitDriver.js';

export interface SourceCommitOptions {
  readonly runDir: string;
  readonly migrationId: string;
  /** From here on nothing but the machine lets the guest run here. @throws when it is not to go */
  readonly hold: () => void;
  /** Where the relay sends it. @returns false when nobody will ever get it; left out where `held` is an answer */
  readonly sendGo?: () => boolean;
  /** Lets the guest run on here. @throws when it does not */
  readonly resumeGuest: () => Promise<void>;
  /** Ends QEMU, whose guest runs elsewhere. @throws when it does not end, or must not */
  readonly endQemu: () => Promise<void>;
  /** What the host notes of the migration then. */
  readonly phaseOnceReleased?: NonNullable<LedgerChanges['phase']>;
}

export class SourceCommit {
  readonly #options: SourceCommitOptions;
  readonly #driver: CommitDriver<SourceState, SourceEvent, SourceAction>;
  #failure: unknown = null;

  constructor(state: SourceState, options: SourceCommitOptions) {
    this.#options = options;
    this.#driver = new CommitDriver(state, sourceStep, (action) => this.#perform(action));
  }

  get state(): SourceState {
    return this.#driver.state;
  }

  /** The first thing that went wrong; null before. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Something went wrong of which the machine learns by other ways. */
  noteFailure(error: unknown): void {
    this.#failure ??= error;
  }

  async post(event: SourceEvent): Promise<SourceState> {
    return await this.#driver.post(event);
  }

  async until(isReached: (state: SourceState) => boolean, signal?: AbortSignal): Promise<SourceState> {
    return await this.#driver.until(isReached, signal);
  }

  /** For those who look: nothing here depends on it. */
  async note(changes: LedgerChanges): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await updateLedger(runDir, { migrationId, role: 'source' }, changes).catch(() => {});
  }

  async #perform(action: SourceAction): Promise<SourceEvent | null> {
    switch (action) {
      case 'writeHeld':
        return await this.#hold();
      case 'writeKept':
        return await this.#decide('kept');
      case 'sendGo':
        // Never sent, it cannot be obeyed.
        if (this.#options.sendGo?.() === false) return 'refused';
        await this.note({ phase: 'committing' });
        return null;
      case 'resumeGuest':
        return await this.#attempt(this.#options.resumeGuest, 'guestResumed', 'resumeFailed');
      case 'endQemu':
        return await this.#attempt(() => this.#endQemu(), 'qemuEnded', 'endFailed');
      default:
        // Who has asked is answered with the state.
        return null;
    }
  }

  async #hold(): Promise<SourceEvent> {
    try {
      this.#options.hold();
    } catch (error) {
      this.noteFailure(error);
      return 'writeFailed';
    }
    return await this.#decide('held');
  }

  async #decide(decision: 'held' | 'kept'): Promise<SourceEvent> {
    return await decideAtSource(this.#options, decision, (error) => this.noteFailure(error));
  }

  async #endQemu(): Promise<void> {
    const { endQemu, phaseOnceReleased } = this.#options;
    await endQemu();
    if (phaseOnceReleased !== undefined) await this.note({ phase: phaseOnceReleased });
  }

  async #attempt(work: () => Promise<void>, done: SourceEvent, failed: SourceEvent): Promise<SourceEvent> {
    try {
      await work();
      return done;
    } catch (error) {
      this.noteFailure(error);
      return failed;
    }
  }
}
