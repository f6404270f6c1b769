/** The destination's side of the commit point, carried out upon the guest that was brought to this host. */
import {
  type DestinationAction,
  type DestinationEvent,
  type DestinationState,
  decideAtDestination,
  destinationStep,
  type LedgerChanges,
  updateLedger,
} from './commit/index.js';
import { CommitDriver } from './commitDriver.js';
import { type ArrivedGuest, isRefusal } from './guest/arrivedGuest.js';

export interface DestinationCommitOptions {
  readonly runDir: string;
  readonly migrationId: string;
  /** Resolves with null while, and when, no QEMU was started for it. */
  readonly arrived: () => Promise<ArrivedGuest | null>;
  /** What the host notes of the migration when the guest runs here. */
  readonly phaseOnceItRuns: NonNullable<LedgerChanges['phase']>;
  /** Tells the source; where that is the command's, who has asked is answered with the state. */
  readonly tell?: (answer: 'tellRunning' | 'tellRefused') => void;
}

export class DestinationCommit {
  readonly #options: DestinationCommitOptions;
  readonly #driver: CommitDriver<DestinationState, DestinationEvent, DestinationAction>;
  #failure: unknown = null;
  #resumedAtMs: number | null = null;

  constructor(state: DestinationState, options: DestinationCommitOptions) {
    this.#options = options;
    this.#driver = new CommitDriver(state, destinationStep, (action) => this.#perform(action));
  }

  get state(): DestinationState {
    return this.#driver.state;
  }

  /** The first thing that went wrong; null before. */
  get failure(): unknown {
    return this.#failure;
  }

  /** When the guest began to run, by this host's clock; null before. */
  get resumedAtMs(): number | null {
    return this.#resumedAtMs;
  }

  /** Something went wrong of which the machine learns by other ways. */
  noteFailure(error: unknown): void {
    this.#failure ??= error;
  }

  async post(event: DestinationEvent): Promise<DestinationState> {
    return await this.#driver.post(event);
  }

  /** The guest cannot be loaded, or its relay has given up. */
  async failed(error: unknown): Promise<void> {
    this.noteFailure(error);
    await this.#driver.post('failed');
  }

  async until(isReached: (state: DestinationState) => boolean, signal?: AbortSignal): Promise<DestinationState> {
    return await this.#driver.until(isReached, signal);
  }

  /** For those who look, and who come after this service: nothing here depends on it. */
  async note(changes: LedgerChanges): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await updateLedger(runDir, { migrationId, role: 'destination' }, changes).catch(() => {});
  }

  async #perform(action: DestinationAction): Promise<DestinationEvent | null> {
    switch (action) {
      case 'writeRun':
        return await this.#decide('run');
      case 'writeEnd':
        return await this.#decide('end');
      case 'releaseGuard':
        (await this.#options.arrived())?.release();
        return null;
      case 'startGuest':
        return await this.#startGuest();
      case 'lookAtGuest':
        return (await (await this.#options.arrived())?.look()) ?? 'guestGone';
      case 'endQemu':
        return await this.#endQemu();
      case 'tellRunning':
      case 'tellRefused':
        this.#options.tell?.(action);
        return null;
      case 'tellUnknown':
        return null;
    }
  }

  async #decide(decision: 'run' | 'end'): Promise<DestinationEvent> {
    return await decideAtDestination(this.#options, decision, (error) => this.noteFailure(error));
  }

  async #startGuest(): Promise<DestinationEvent> {
    try {
      const guest = await this.#options.arrived();
      this.#resumedAtMs = await guest!.start();
      await this.note({ phase: this.#options.phaseOnceItRuns });
      return 'guestStarted';
    } catch (error) {
      this.noteFailure(error);
      return isRefusal(error) ? 'startRefused' : 'startSilent';
    }
  }

  async #endQemu(): Promise<DestinationEvent> {
    try {
      await (await this.#options.arrived())?.end();
      return 'qemuEnded';
    } catch (error) {
      this.noteFailure(error);
      return 'endFailed';
    }
  }
}
