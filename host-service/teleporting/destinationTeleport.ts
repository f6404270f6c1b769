/**
 * The destination host's part in a teleport: the relay, the destination's side of the commit point, and what the host notes of it. A guest that runs here is
 * noted until its source is known to have let go of it: until then somebody may have to ask.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type DestinationGuest, type ProcessId, waitUntilLoaded } from '../../hypervisor/index.js';
import { DestinationRelay, type DestinationRelayOptions } from '../../relay/destination/destinationRelay.js';
import type { RelayError } from '../../relay/errors.js';
import { type DestinationState, removeLedger, writeLedger } from '../commit/index.js';
import { type Control, serveControl } from '../control.js';
import { DestinationCommit } from '../destinationCommit.js';
import type { ArrivedGuest } from '../guest/arrivedGuest.js';
import { newLedger } from '../newLedger.js';
import type { GuestAddress, Loaded } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import { untilAborted } from '../untilAborted.js';

/** Whoever asked is gone: for the source to let go of the guest that runs here. */
const releaseTimeoutMs = 30_000;
/** For QEMU to say what was wrong with the stream. */
const lastWordsMs = 1000;

export interface DestinationTeleportOptions {
  readonly runDir: string;
  readonly migrationId: string;
  readonly guest: GuestAddress;
  readonly peer: { readonly host: string; readonly runDir: string };
  /** Resolves with null while, and when, no QEMU was started for it. */
  readonly arrived: () => Promise<ArrivedGuest | null>;
}

export class DestinationTeleport implements AsyncDisposable {
  readonly #options: DestinationTeleportOptions;
  readonly #commit: DestinationCommit;
  #control: Control | null = null;
  relay: DestinationRelay | null = null;
  #isConcluded = false;
  #tellConcluded!: () => void;
  readonly #concluded = new Promise<void>((resolve) => {
    this.#tellConcluded = resolve;
  });

  private constructor(options: DestinationTeleportOptions) {
    this.#options = options;
    const tell = (answer: 'tellRunning' | 'tellRefused') => this.#tell(answer);
    this.#commit = new DestinationCommit('loading', { ...options, phaseOnceItRuns: 'ended', tell });
  }

  /** @throws LedgerError when nothing can be noted here */
  static async start(options: DestinationTeleportOptions): Promise<DestinationTeleport> {
    const { runDir, migrationId, guest, peer } = options;
    const own = new DestinationTeleport(options);
    const facts = { migrationId, mode: 'teleport', guest, peer, link: null } as const;
    await writeLedger(runDir, await newLedger('destination', facts, null));
    own.#control = await serveControl(runDir, migrationId, 'destination', {
      status: async () => ({ commit: own.state, resumedAtMs: own.#commit.resumedAtMs, ...own.relay?.state }),
      pulled: () => Promise.reject(new ServiceError('VMMIG_SERVICE_ORDER', 'a teleport has no pull')),
      conclude: async () => own.conclude(),
      post: async () => ({ state: await own.ask() }),
    });
    return own;
  }

  /**
   * Listens for the source relay.
   * @param givenUp - called when the relay has
   */
  async listen(options: DestinationRelayOptions, givenUp: () => void): Promise<DestinationRelay> {
    const relay = await DestinationRelay.start(options, { released: () => this.conclude() });
    this.relay = relay;
    // Nobody may be left to ask for it when the network is gone, and without the link this QEMU is of no use.
    relay.finished.catch(async (error) => {
      givenUp();
      await delay(lastWordsMs);
      await this.failed(error);
    });
    return relay;
  }

  /**
   * Resolves when QEMU has loaded everything, and it was found equal to the source's.
   * @param guest - null for libvirt's: what that QEMU needs to run the guest is kept for `commit`
   */
  async finished(guest: DestinationGuest | null, signal: AbortSignal): Promise<Loaded> {
    if (guest === null) await untilAborted(this.relay!.finished, signal);
    else {
      const loaded = waitUntilLoaded(guest, { signal });
      loaded.catch(() => {});
      await this.relay!.finished.catch((thrown: RelayError) => {
        // QEMU's own reason is the better one when it hung up on the relay.
        if (thrown.code === 'VMMIG_RELAY_QEMU') return loaded;
        throw thrown;
      });
      await loaded;
    }
    if ((await this.#commit.post('loaded')) !== 'loaded') throw this.#whyNot();
    const { counters, bytesOnWire } = this.relay!.state;
    return { counters, bytesOnWire };
  }

  get state(): DestinationState {
    return this.#commit.state;
  }

  /** Somebody may still have to ask whether the guest runs here. */
  get isInDoubt(): boolean {
    return this.state !== 'ended' && !(this.state === 'running' && this.#isConcluded);
  }

  /** QEMU has been started: noted, for who comes after this service. */
  async started({ pid, startTime }: ProcessId): Promise<void> {
    await this.#commit.note({ process: { pid, startTime }, phase: 'moving' });
  }

  /** The guest cannot be loaded. */
  async failed(error: unknown): Promise<void> {
    await this.#commit.failed(error);
  }

  /** Its QEMU has ended. Before it is let run that is an end; what it means later is found out by who asks. */
  async lostGuest(error: unknown): Promise<void> {
    if (this.state === 'loaded') await this.failed(error);
  }

  /** Lets the guest run. @returns when it began to, by this host's clock. @throws when it does not, or may not */
  async commit(): Promise<number> {
    if ((await this.#commit.post('go')) !== 'running') throw this.#whyNot();
    return this.#commit.resumedAtMs!;
  }

  /** Does the guest run here? If not, it never will. */
  async ask(): Promise<DestinationState> {
    return await this.#commit.post('ask');
  }

  /** The source has let go of the guest: nobody has to ask any more. */
  conclude(): void {
    this.#isConcluded = true;
    this.#tellConcluded();
  }

  /**
   * Who has asked for the teleport is gone: it is given up, unless the guest runs here. Resolves when the source has let go
   * of it then, or will not.
   */
  async settled(): Promise<void> {
    if ((await this.#commit.post('abandon')) !== 'running' || this.#isConcluded) return;
    const limit = delay(releaseTimeoutMs, undefined, { ref: false });
    await Promise.race([this.#concluded, this.relay!.parted, limit]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await this.#commit.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'destination');
  }

  #tell(answer: 'tellRunning' | 'tellRefused'): void {
    if (answer === 'tellRunning') return this.relay?.tellRunning();
    const { failure } = this.#commit;
    this.relay?.tellRefused(failure instanceof Error ? failure.message : 'it was given up');
  }

  #whyNot(): unknown {
    return this.#commit.failure ?? new ServiceError('VMMIG_SERVICE_ORDER', 'there is no loaded guest to let run');
  }
}
