/**
 * The source host's part in a switch: the relay, and the source's side of the commit point. From `held` on it outlives
 * whoever has asked for the migration, for as long as the guest may need memory from here.
 */
import { freemem } from 'node:os';
import { join } from 'node:path';
import type { GuestInspection } from '../../hypervisor/index.js';
import type { Endpoint } from '../../relay/link/connection.js';
import { SwitchSource, type SwitchSourceOptions } from '../../relay/source/switchSource.js';
import {
  decide,
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
import type { Params } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import type { OpenMemory } from './guestMemory.js';

export interface SourceSwitchOptions {
  readonly params: Params<'source.listen'>;
  readonly inspection: GuestInspection;
  /** Where it is kept in files. Ended with this. */
  readonly memory: OpenMemory | null;
  /** Lets the guest run on here. @throws when it does not */
  readonly resumeGuest: () => Promise<void>;
  /** Ends QEMU, whose guest runs elsewhere. @throws when it does not end */
  readonly endQemu: () => Promise<void>;
  /** Resolves with what came of the pull. */
  readonly pulled: () => Promise<object>;
}

/** The guest is here, and nothing else may have it. */
const isHere: ReadonlySet<SourceState> = new Set(['resumed', 'kept', 'orphaned']);
const mayBeGone: ReadonlySet<SourceState> = new Set(['holding', 'held', 'inDoubt', 'releasing', 'released']);

export class SourceSwitch implements AsyncDisposable {
  relay!: SwitchSource;
  readonly #options: SourceSwitchOptions;
  readonly #driver: CommitDriver<SourceState, SourceEvent, SourceAction>;
  #control: Control | null = null;
  #permit!: () => void;
  readonly #permitted = new Promise<void>((resolve) => {
    this.#permit = resolve;
  });
  #interruptedAtMs: number | null = null;
  #failure: unknown = null;
  /** The relay has given up: what the destination still needs it will not get. */
  #isCutOff = false;

  private constructor(options: SourceSwitchOptions) {
    this.#options = options;
    this.#driver = new CommitDriver('running', sourceStep, (action) => this.#perform(action));
  }

  /** Listens for QEMU; the relay is to be connected by the caller. */
  static async start(options: SourceSwitchOptions): Promise<SourceSwitch> {
    const { params, inspection, memory } = options;
    const { runDir, migrationId } = params;
    const own = new SourceSwitch(options);
    const { guest, peer } = params.switching!;
    await writeLedger(runDir, await newLedger('source', { migrationId, guest, peer, link: null }, inspection.process));
    try {
      own.relay = await SwitchSource.listen(relayOptions(params, memory), {
        ready: () => void own.#commit(),
        running: () => void own.#driver.post('running'),
        refused: (message) => {
          const text = `the destination did not take over: ${message}`;
          own.#failure ??= new ServiceError('VMMIG_SWITCH_REFUSED', text);
          void own.#driver.post('refused');
        },
        interrupted: () => {
          own.#interruptedAtMs = Date.now();
        },
        lost: () => {
          own.#interruptedAtMs ??= Date.now();
        },
        resumed: () => {
          own.#interruptedAtMs = null;
          void own.#driver.post('linkBack');
        },
      });
      own.relay.finished.catch((error) => {
        own.#failure ??= error;
        own.#isCutOff = true;
        void own.#driver.post('abandon');
      });
      own.#control = await serveControl(runDir, migrationId, 'source', {
        status: async () => ({ commit: own.state, interruptedAtMs: own.#interruptedAtMs, ...own.relay.state }),
        pulled: () => options.pulled(),
        reconnect: (endpoint) => own.reconnect(endpoint),
        post: async ({ event }) => ({ state: await own.post(event as 'abandon' | 'release' | 'resume') }),
      });
    } catch (thrown) {
      await own[Symbol.asyncDispose]();
      throw thrown;
    }
    return own;
  }

  /** The guest may go, as far as the command is concerned. */
  permit(): void {
    this.#permit();
  }

  async #commit(): Promise<void> {
    await this.#driver.post('guestStopped');
    if (this.#options.params.switching!.awaitsPermission) await this.#permitted;
    await this.#driver.post('commit');
  }

  get state(): SourceState {
    return this.#driver.state;
  }

  /** Whether the guest runs at the destination, or may. */
  get mayBeGone(): boolean {
    return mayBeGone.has(this.#driver.state);
  }

  /** Where the guest is, or whether it has all its memory, is not known here. */
  get isInDoubt(): boolean {
    return this.state !== 'resumed' && (this.state !== 'released' || this.#isCutOff);
  }

  async post(event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    return await this.#driver.post(event);
  }

  /** @param endpoint - of another relay at the destination; null: that needs nothing any more */
  async reconnect(endpoint: Endpoint | null): Promise<void> {
    if (endpoint === null) return this.relay.conclude();
    await this.relay.reconnect(endpoint);
    this.#interruptedAtMs = null;
  }

  /** Resolves when the destination runs the guest and QEMU has ended here. @throws when it goes on here, or may */
  async switched(signal: AbortSignal): Promise<void> {
    const hasEnded = (reached: SourceState) => reached === 'released' || reached === 'inDoubt' || isHere.has(reached);
    const state = await this.#driver.until((reached) => hasEnded(reached) || this.#isCutOff, signal);
    if (state === 'released') return;
    throw this.#failure ?? new ServiceError('VMMIG_SWITCH_REFUSED', 'the destination did not take over');
  }

  /**
   * Who has asked for the switch is gone: it is given up, unless it has been decided. Resolves when nobody needs anything
   * from here any more, or all hope is gone.
   */
  async settled(): Promise<void> {
    await this.#driver.post('abandon');
    if (!this.mayBeGone) return;
    await this.relay.finished.catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options.params;
    await this.#driver.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    await this.relay?.[Symbol.asyncDispose]();
    await this.#options.memory?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'source');
  }

  async #perform(action: SourceAction): Promise<SourceEvent | null> {
    const { params } = this.#options;
    switch (action) {
      case 'writeHeld':
        return await this.#decide('held');
      case 'writeKept':
        return await this.#decide('kept');
      case 'sendGo':
        // Never sent, it cannot be obeyed.
        if (!this.relay.go()) return 'refused';
        await updateLedger(params.runDir, { ...params, role: 'source' }, { phase: 'committing' }).catch(() => {});
        return null;
      case 'resumeGuest':
        try {
          this.relay?.abort();
          await this.#options.resumeGuest();
          return 'guestResumed';
        } catch (error) {
          this.#failure ??= error;
          return 'resumeFailed';
        }
      case 'endQemu':
        try {
          if (this.#isCutOff) return 'endFailed';
          await this.#options.endQemu();
          await updateLedger(params.runDir, { ...params, role: 'source' }, { phase: 'pulling' }).catch(() => {});
          return 'qemuEnded';
        } catch (error) {
          this.#failure ??= error;
          return 'endFailed';
        }
      default:
        // Who has asked is answered with the state.
        return null;
    }
  }

  async #decide(decision: 'held' | 'kept'): Promise<SourceEvent> {
    const { runDir, migrationId } = this.#options.params;
    // Nobody is there to take the guest.
    if (decision === 'held' && this.#isCutOff) return 'writeFailed';
    try {
      const stands = await decide(runDir, migrationId, 'source', decision);
      if (stands === decision) return decision === 'held' ? 'wroteHeld' : 'wroteKept';
      return stands === 'held' ? 'heldStands' : 'keptStands';
    } catch (error) {
      this.#failure ??= error;
      return 'writeFailed';
    }
  }
}

function relayOptions(params: Params<'source.listen'>, memory: OpenMemory | null): SwitchSourceOptions {
  const { runDir, migrationId, key, connections, bandwidthBps, compress, switching } = params;
  const directory = join(runDir, migrationId);
  const { pageStoreLimitBytes, spillDir, reconnectTimeoutMs } = switching!;
  return {
    socketPath: join(directory, 'source'),
    credentials: { migrationId, key: Buffer.from(key, 'base64') },
    connections,
    bandwidthBps,
    compress,
    reconnectTimeoutMs,
    memory,
    store: {
      limitBytes: pageStoreLimitBytes ?? Math.floor(freemem() / 2),
      spillPath: spillDir === null ? null : join(spillDir, `${migrationId}.pages`),
    },
  };
}
