/**
 * The destination's side of the commit point of a teleport, and what the host notes of it. A guest that runs here is
 * noted until its source is known to have let go of it: until then somebody may have to ask.
 */
import type { ProcessId } from '../../hypervisor/index.js';
import {
  type DestinationAction,
  type DestinationEvent,
  type DestinationState,
  decideAtDestination,
  destinationStep,
  removeLedger,
  updateLedger,
  writeLedger,
} from '../commit/index.js';
import { CommitDriver } from '../commitDriver.js';
import { type Control, serveControl } from '../control.js';
import { newLedger } from '../newLedger.js';
import type { GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import { type ArrivedGuest, isRefusal } from './arrivedGuest.js';

export interface DestinationTeleportOptions {
  readonly runDir: string;
  readonly migrationId: string;
  readonly guest: GuestAddress;
  readonly peer: { readonly host: string; readonly runDir: string };
  /** Resolves with null while, and when, no QEMU was started for it. */
  readonly arrived: () => Promise<ArrivedGuest | null>;
  /** What the relay tells of itself. */
  readonly status: () => object;
}

export class DestinationTeleport implements AsyncDisposable {
  readonly #options: DestinationTeleportOptions;
  readonly #driver: CommitDriver<DestinationState, DestinationEvent, DestinationAction>;
  #control: Control | null = null;
  #failure: unknown = null;
  #resumedAtMs = 0;
  #isConcluded = false;

  private constructor(options: DestinationTeleportOptions) {
    this.#options = options;
    this.#driver = new CommitDriver('loading', destinationStep, (action) => this.#perform(action));
  }

  /** @throws LedgerError when nothing can be noted here */
  static async start(options: DestinationTeleportOptions): Promise<DestinationTeleport> {
    const { runDir, migrationId, guest, peer } = options;
    const own = new DestinationTeleport(options);
    const facts = { migrationId, mode: 'teleport', guest, peer, link: null } as const;
    await writeLedger(runDir, await newLedger('destination', facts, null));
    own.#control = await serveControl(runDir, migrationId, 'destination', {
      status: async () => ({
        commit: own.state,
        resumedAtMs: own.#resumedAtMs || null,
        ...options.status(),
      }),
      pulled: () => Promise.reject(new ServiceError('VMMIG_SERVICE_ORDER', 'a teleport has no pull')),
      post: async () => ({ state: await own.ask() }),
    });
    return own;
  }

  get state(): DestinationState {
    return this.#driver.state;
  }

  /** Somebody may still have to ask whether the guest runs here. */
  get isInDoubt(): boolean {
    return this.state !== 'ended' && !(this.state === 'running' && this.#isConcluded);
  }

  /** QEMU has been started: noted, for who comes after this service. */
  async started({ pid, startTime }: ProcessId): Promise<void> {
    await this.#note({ process: { pid, startTime }, phase: 'moving' });
  }

  /** QEMU holds the whole guest, equal to the source's. @throws when it was given up meanwhile */
  async loaded(): Promise<void> {
    if ((await this.#driver.post('loaded')) !== 'loaded') throw this.#whyNot();
  }

  /** The guest cannot be loaded. */
  async failed(error: unknown): Promise<void> {
    this.#failure ??= error;
    await this.#driver.post('failed');
  }

  /** Its QEMU has ended. Before it is let run that is an end; what it means later is found out by who asks. */
  async lostGuest(error: unknown): Promise<void> {
    if (this.state === 'loaded') await this.failed(error);
  }

  /** Lets the guest run. @returns when it began to, by this host's clock. @throws when it does not, or may not */
  async commit(): Promise<number> {
    if ((await this.#driver.post('go')) !== 'running') throw this.#whyNot();
    return this.#resumedAtMs;
  }

  /** Does the guest run here? If not, it never will. */
  async ask(): Promise<DestinationState> {
    return await this.#driver.post('ask');
  }

  /** The source has let go of the guest: nobody has to ask any more. */
  conclude(): void {
    this.#isConcluded = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await this.#driver.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'destination');
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
      default:
        // Who has asked is answered with the state.
        return null;
    }
  }

  async #decide(decision: 'run' | 'end'): Promise<DestinationEvent> {
    return await decideAtDestination(this.#options, decision, (error) => {
      this.#failure ??= error;
    });
  }

  async #startGuest(): Promise<DestinationEvent> {
    try {
      const guest = await this.#options.arrived();
      this.#resumedAtMs = await guest!.start();
      await this.#note({ phase: 'ended' });
      return 'guestStarted';
    } catch (error) {
      this.#failure ??= error;
      return isRefusal(error) ? 'startRefused' : 'startSilent';
    }
  }

  async #endQemu(): Promise<DestinationEvent> {
    try {
      await (await this.#options.arrived())?.end();
      return 'qemuEnded';
    } catch (error) {
      this.#failure ??= error;
      return 'endFailed';
    }
  }

  #whyNot(): unknown {
    return this.#failure ?? new ServiceError('VMMIG_SERVICE_ORDER', 'there is no loaded guest to let run');
  }

  /** For those who look: nothing depends on it. */
  async #note(changes: Parameters<typeof updateLedger>[2]): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await updateLedger(runDir, { migrationId, role: 'destination' }, changes).catch(() => {});
  }
}
