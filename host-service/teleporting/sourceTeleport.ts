/**
 * The source host's part in a teleport: the relay, the source's side of the commit point, and what the host notes of it: for
 * `status` and `recover`, from any machine. The permission to run the guest (`go`) is the answer to `hold`, and the command hands it on.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { GuestInspection } from '../../hypervisor/index.js';
import { SourceRelay, type SourceRelayOptions } from '../../relay/source/sourceRelay.js';
import { removeLedger, type SourceEvent, type SourceState, writeLedger } from '../commit/index.js';
import { type Control, serveControl } from '../control.js';
import { newLedger } from '../newLedger.js';
import type { Params } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import { SourceCommit } from '../sourceCommit.js';

/** Whoever asked is gone: for the destination, which notices that by itself, to say what has become of the guest. */
const lastWordTimeoutMs = 30_000;
const settledStates: ReadonlySet<SourceState> = new Set(['kept', 'resumed', 'inDoubt', 'released']);

export interface SourceTeleportOptions {
  readonly params: Params<'source.listen'>;
  /** Where the relay listens for QEMU. */
  readonly streamPath: string;
  /** QEMU has a return path, and waits there for its destination's answers. */
  readonly answersQemu: boolean;
  readonly inspection: GuestInspection;
  /** From here on nothing but the machine lets the guest run here. */
  readonly holdGuest: () => void;
  /** Lets the guest run on here. @throws when it does not */
  readonly resumeGuest: () => Promise<void>;
  /** Ends QEMU, whose guest runs elsewhere. @throws when it does not end */
  readonly endQemu: () => Promise<void>;
}

export class SourceTeleport implements AsyncDisposable {
  relay!: SourceRelay;
  readonly #options: SourceTeleportOptions;
  readonly #commit: SourceCommit;
  #control: Control | null = null;

  private constructor(options: SourceTeleportOptions) {
    this.#options = options;
    this.#commit = new SourceCommit('running', { ...options.params, ...options, hold: options.holdGuest });
  }

  /** Listens for QEMU; the relay is to be connected by the caller. @throws LedgerError when nothing can be noted here */
  static async start(options: SourceTeleportOptions): Promise<SourceTeleport> {
    const { params, inspection } = options;
    const { runDir, migrationId, guest, peer } = params;
    const own = new SourceTeleport(options);
    const facts = { migrationId, mode: 'teleport', guest, peer, link: null } as const;
    await writeLedger(runDir, await newLedger('source', facts, inspection.process));
    try {
      own.relay = await SourceRelay.listen(relayOptions(options), {
        running: () => void own.#post('running'),
        refused: () => void own.#post('refused'),
      });
      own.#control = await serveControl(runDir, migrationId, 'source', {
        status: async () => ({ commit: own.state, ...own.relay.state, interruptedAtMs: own.relay.interruptedAtMs }),
        pulled: () => Promise.reject(new ServiceError('VMMIG_SERVICE_ORDER', 'a teleport has no pull')),
        post: async ({ event }) => ({ state: await own.post(event as 'abandon' | 'release' | 'resume') }),
      });
    } catch (thrown) {
      await own[Symbol.asyncDispose]();
      throw thrown;
    }
    return own;
  }

  get state(): SourceState {
    return this.#commit.state;
  }

  /** Where the guest is, is not known here, or it could not be put right. */
  get isInDoubt(): boolean {
    return this.state !== 'resumed' && this.state !== 'released';
  }

  /** A destination that remembers nothing, and has not restarted since, has given the guest up. */
  async knowPeer(peerBootId: string): Promise<void> {
    await this.#commit.note({ peerBootId });
  }

  /** QEMU has sent everything, and the destination's memory was found equal. */
  async complete(): Promise<void> {
    await this.#commit.post('guestStopped');
  }

  /**
   * Resolves when the guest may be let run on the destination, and nowhere else: that is on disk.
   * @throws ServiceError VMMIG_SERVICE_ORDER when it may not: its migration is not complete, or was given up
   */
  async hold(): Promise<void> {
    const state = await this.#commit.post('commit');
    if (state === 'held') return;
    throw this.#commit.failure ?? new ServiceError('VMMIG_SERVICE_ORDER', 'there is no complete migration to hold');
  }

  async post(event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    return await this.#post(event);
  }

  /** Who has asked for the teleport is gone. Resolves when the destination has told what became of the guest, or will not. */
  async settled(): Promise<void> {
    if (this.state !== 'held' && this.state !== 'releasing') return;
    const decided = this.#commit.until((state) => settledStates.has(state));
    const limit = delay(lastWordTimeoutMs, undefined, { ref: false });
    await Promise.race([decided, this.relay.parted, limit]);
    // What the destination has said last is still being done.
    if (this.state !== 'held') await decided;
  }

  async #post(event: SourceEvent): Promise<SourceState> {
    const state = await this.#commit.post(event);
    if (state === 'released') this.relay.tellReleased();
    return state;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options.params;
    await this.#commit.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    await this.relay?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'source');
  }
}

function relayOptions({ params, streamPath, answersQemu }: SourceTeleportOptions): SourceRelayOptions {
  const { migrationId, key, connections, bandwidthBps, compress, reconnectTimeoutMs } = params;
  return {
    socketPath: streamPath,
    answersQemu,
    credentials: { migrationId, key: Buffer.from(key, 'base64') },
    connections,
    bandwidthBps,
    reconnectTimeoutMs,
    elide: true,
    compress,
  };
}
