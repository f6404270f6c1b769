/**
 * The source's side of the commit point of a teleport, and what the host notes of it: for `status` and `recover`, from
 * any machine. The permission to run the guest (`go`) is the answer to `hold`, and the command hands it on.
 */
import type { ProcessId } from '../../hypervisor/index.js';
import {
  decideAtSource,
  removeLedger,
  type SourceAction,
  type SourceEvent,
  type SourceState,
  sourceStep,
  updateLedger,
  writeLedger,
} from '../commit/index.js';
import { CommitDriver } from '../commitDriver.js';
import { type Control, serveControl } from '../control.js';
import { newLedger } from '../newLedger.js';
import type { GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';

export interface SourceTeleportOptions {
  readonly runDir: string;
  readonly migrationId: string;
  readonly guest: GuestAddress;
  readonly peer: { readonly host: string; readonly runDir: string };
  readonly qemu: ProcessId;
  /** From here on nothing but the machine lets the guest run here. */
  readonly hold: () => void;
  /** Lets the guest run on here. @throws when it does not */
  readonly resumeGuest: () => Promise<void>;
  /** Ends QEMU, whose guest runs elsewhere. @throws when it does not end */
  readonly endQemu: () => Promise<void>;
  /** What the relay tells of itself. */
  readonly status: () => object;
}

export class SourceTeleport implements AsyncDisposable {
  readonly #options: SourceTeleportOptions;
  readonly #driver: CommitDriver<SourceState, SourceEvent, SourceAction>;
  #control: Control | null = null;
  #failure: unknown = null;

  private constructor(options: SourceTeleportOptions) {
    this.#options = options;
    this.#driver = new CommitDriver('running', sourceStep, (action) => this.#perform(action));
  }

  /** @throws LedgerError when nothing can be noted here */
  static async start(options: SourceTeleportOptions): Promise<SourceTeleport> {
    const { runDir, migrationId, guest, peer, qemu } = options;
    const own = new SourceTeleport(options);
    const facts = { migrationId, mode: 'teleport', guest, peer, link: null } as const;
    await writeLedger(runDir, await newLedger('source', facts, qemu));
    own.#control = await serveControl(runDir, migrationId, 'source', {
      status: async () => ({ commit: own.state, ...options.status() }),
      pulled: () => Promise.reject(new ServiceError('VMMIG_SERVICE_ORDER', 'a teleport has no pull')),
      post: async ({ event }) => ({ state: await own.post(event as 'abandon' | 'release' | 'resume') }),
    });
    return own;
  }

  get state(): SourceState {
    return this.#driver.state;
  }

  /** Where the guest is, is not known here, or it could not be put right. */
  get isInDoubt(): boolean {
    return this.state !== 'resumed' && this.state !== 'released';
  }

  /** QEMU has sent everything, and the destination's memory was found equal. */
  async complete(): Promise<void> {
    await this.#driver.post('guestStopped');
  }

  /**
   * Resolves when the guest may be let run on the destination, and nowhere else: that is on disk.
   * @param peerBootId - what the destination told of its boot
   * @throws ServiceError VMMIG_SERVICE_ORDER when it may not: its migration is not complete, or was given up
   */
  async hold(peerBootId: string | null): Promise<void> {
    if (peerBootId !== null) await this.#note({ peerBootId });
    const state = await this.#driver.post('commit');
    if (state === 'held') return;
    throw this.#failure ?? new ServiceError('VMMIG_SERVICE_ORDER', 'there is no complete migration to hold');
  }

  async post(event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    return await this.#driver.post(event);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await this.#driver.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'source');
  }

  async #perform(action: SourceAction): Promise<SourceEvent | null> {
    switch (action) {
      case 'writeHeld':
        this.#options.hold();
        return await this.#decide('held');
      case 'writeKept':
        return await this.#decide('kept');
      case 'sendGo':
        await this.#note({ phase: 'committing' });
        return null;
      case 'resumeGuest':
        return await this.#attempt(this.#options.resumeGuest, 'guestResumed', 'resumeFailed');
      case 'endQemu':
        return await this.#attempt(this.#options.endQemu, 'qemuEnded', 'endFailed');
      default:
        // Who has asked is answered with the state.
        return null;
    }
  }

  async #decide(decision: 'held' | 'kept'): Promise<SourceEvent> {
    return await decideAtSource(this.#options, decision, (error) => {
      this.#failure ??= error;
    });
  }

  async #attempt(work: () => Promise<void>, done: SourceEvent, failed: SourceEvent): Promise<SourceEvent> {
    try {
      await work();
      return done;
    } catch (error) {
      this.#failure ??= error;
      return failed;
    }
  }

  /** For those who look: nothing depends on it. */
  async #note(changes: Parameters<typeof updateLedger>[2]): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await updateLedger(runDir, { migrationId, role: 'source' }, changes).catch(() => {});
  }
}
