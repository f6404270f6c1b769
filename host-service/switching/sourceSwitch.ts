/**
 * The source host's part in a switch: the relay, and the source's side of the commit point. From `held` on it outlives
 * whoever has asked for the migration, for as long as the guest may need memory from here.
 */
import { freemem } from 'node:os';
import { join } from 'node:path';
import { type GuestInspection, processId } from '../../hypervisor/index.js';
import type { Endpoint } from '../../relay/link/connection.js';
import type { GuestMemory } from '../../relay/source/filePages.js';
import { SwitchSource, type SwitchSourceHandlers, type SwitchSourceOptions } from '../../relay/source/switchSource.js';
import { removeLedger, type SourceState, sourceFrom, updateLedger, writeLedger } from '../commit/index.js';
import { type Control, serveControl } from '../control.js';
import { newLedger } from '../newLedger.js';
import type { Params } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import { SourceCommit } from '../sourceCommit.js';
import type { OpenMemory } from './guestMemory.js';
import { captureLogPath, noteMemory, type SourceRemains } from './keptMemory.js';
import { endOrphan, lookAtSource, resumeOrphan } from './leftGuest.js';
import { yieldToFirstMoments } from './yielding.js';

export interface SourceSwitchOptions {
  readonly runDir: string;
  readonly migrationId: string;
  /** Where it is kept in files. Ended with this. */
  readonly memory: OpenMemory | null;
  /** From here on nothing but the machine lets the guest run here. */
  readonly holdGuest: () => void;
  /** Lets the guest run on here. @throws when it does not */
  readonly resumeGuest: () => Promise<void>;
  /** Ends QEMU, whose guest runs elsewhere. @throws when it does not end */
  readonly endQemu: () => Promise<void>;
  /** Who manages the guest may know better than the relay why it failed. */
  readonly explained?: (failure: Error) => Promise<Error>;
  /** Resolves with what came of the pull. */
  readonly pulled: () => Promise<object>;
}

export interface SourceSwitchStart extends SourceSwitchOptions {
  /** Where the relay listens for QEMU. */
  readonly streamPath: string;
  /** QEMU has a return path, and waits there for its destination's answers. */
  readonly answersQemu: boolean;
  readonly params: Params<'source.listen'>;
  readonly inspection: GuestInspection;
}

/** The guest is here, and nothing else may have it. */
const isHere: ReadonlySet<SourceState> = new Set(['resumed', 'kept', 'orphaned']);
const mayBeGone: ReadonlySet<SourceState> = new Set(['holding', 'held', 'inDoubt', 'releasing', 'released']);

export class SourceSwitch implements AsyncDisposable {
  relay!: SwitchSource;
  readonly #options: SourceSwitchOptions;
  readonly #commit: SourceCommit;
  #control: Control | null = null;
  #permit!: () => void;
  readonly #permitted = new Promise<void>((resolve) => {
    this.#permit = resolve;
  });
  /** Resolves when whoever manages the guest has let go of it. */
  #letGo: Promise<void> = Promise.resolve();
  #interruptedAtMs: number | null = null;
  /** The relay has given up: what the destination still needs it will not get. */
  #isCutOff = false;
  /** Of another service's, that died; until the destination has met this one, it is not needed. */
  readonly #hasTakenOver: boolean;

  private constructor(options: SourceSwitchOptions, state: SourceState, hasTakenOver: boolean) {
    this.#options = options;
    this.#commit = new SourceCommit(state, {
      runDir: options.runDir,
      migrationId: options.migrationId,
      hold: () => {
        // Nobody is there to take the guest.
        this.#requireRelay();
        options.holdGuest();
      },
      sendGo: () => {
        yieldToFirstMoments();
        return this.relay.go();
      },
      resumeGuest: async () => {
        this.relay?.abort();
        await options.resumeGuest();
      },
      endQemu: async () => {
        this.#requireRelay();
        await options.endQemu();
      },
      phaseOnceReleased: 'pulling',
    });
    this.#hasTakenOver = hasTakenOver;
  }

  /** Listens for QEMU; the relay is to be connected by the caller. */
  static async start(options: SourceSwitchStart): Promise<SourceSwitch> {
    const { params, inspection, memory, runDir, migrationId } = options;
    const own = new SourceSwitch(options, 'running', false);
    const { guest, peer } = params;
    const facts = { migrationId, mode: 'switch', guest, peer, link: null } as const;
    const ledger = await newLedger('source', facts, inspection.process);
    const noted = await noteMemory(params, memory);
    await writeLedger(runDir, { ...ledger, ...(noted === null ? {} : { memory: noted }) });
    const kept = memory && { ...memory, ...(noted === null ? {} : { logPath: captureLogPath(runDir, migrationId) }) };
    if (!params.switching!.awaitsPermission) own.permit();
    await own.#begin((handlers) => SwitchSource.listen(relayOptions(options, kept), handlers));
    return own;
  }

  /**
   * Takes the place of one that died after the guest had gone, whose memory is kept in files; `reconnect` is to follow.
   * @throws ServiceError VMMIG_TAKEOVER, VMMIG_QEMU_SILENT
   */
  static async takeOver(
    { ledger, settings, memory, logged }: SourceRemains,
    options: Pick<SourceSwitchOptions, 'runDir' | 'pulled'>,
    signal: AbortSignal,
  ): Promise<SourceSwitch> {
    const { migrationId, guest } = ledger;
    try {
      const state = sourceFrom({ decision: 'held', guest: await lookAtSource(guest, ledger) });
      if (state === 'resumed') throw new ServiceError('VMMIG_TAKEOVER', `${guest.name} runs here`);
      const resumeGuest = () => resumeOrphan(guest);
      const endQemu = () => endOrphan(guest, ledger);
      const own = new SourceSwitch(
        { ...options, migrationId, memory, holdGuest: () => {}, resumeGuest, endQemu },
        state,
        true,
      );
      await updateLedger(options.runDir, ledger, { service: await processId(process.pid) });
      const { blocks: _, key, ...link } = settings;
      const credentials = { migrationId, key: Buffer.from(key, 'base64') };
      const store = { limitBytes: Math.floor(freemem() / 2), spillPath: null };
      await own.#begin((handlers) =>
        SwitchSource.takeOver({ ...link, credentials, store, memory }, handlers, logged, signal),
      );
      return own;
    } catch (thrown) {
      await memory[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  async #begin(open: (handlers: SwitchSourceHandlers) => Promise<SwitchSource>): Promise<void> {
    const { runDir, migrationId, pulled } = this.#options;
    try {
      this.relay = await open({
        ready: () => void this.#offer(),
        running: () => void this.#commit.post('running'),
        refused: (message) => {
          const text = `the destination did not take over: ${message}`;
          this.#commit.noteFailure(new ServiceError('VMMIG_SWITCH_REFUSED', text));
          void this.#commit.post('refused');
        },
        interrupted: () => {
          this.#interruptedAtMs = Date.now();
        },
        lost: () => {
          this.#interruptedAtMs ??= Date.now();
        },
        resumed: () => {
          this.#interruptedAtMs = null;
          void this.#commit.post('linkBack');
        },
      });
      this.relay.finished.catch(async (error) => {
        await this.#note(error);
        this.#isCutOff = true;
        void this.#commit.post('abandon');
      });
      this.#control = await serveControl(runDir, migrationId, 'source', {
        status: async () => ({ commit: this.state, interruptedAtMs: this.#interruptedAtMs, ...this.relay.state }),
        pulled: () => pulled(),
        reconnect: (endpoint) => this.reconnect(endpoint),
        post: async ({ event }) => ({ state: await this.post(event as 'abandon' | 'release' | 'resume') }),
      });
    } catch (thrown) {
      await this[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** A destination that remembers nothing, and has not restarted since, has given the guest up. */
  async knowPeer(peerBootId: string): Promise<void> {
    await this.#commit.note({ peerBootId });
  }

  /** It has set out. @param letGo - rejects when it will not go */
  departs(letGo: Promise<void>): void {
    this.#letGo = letGo;
    letGo.catch((error) => this.lostGuest(error));
  }

  /** It will not go any more, or has ended. */
  async lostGuest(error: Error): Promise<void> {
    await this.#note(error);
    void this.#commit.post('abandon');
  }

  /** The guest may go, as far as the command is concerned. */
  permit(): void {
    this.#permit();
  }

  async #note(failure: Error): Promise<void> {
    this.#commit.noteFailure(await (this.#options.explained?.(failure) ?? failure));
  }

  /** All that the destination needs is ready. */
  async #offer(): Promise<void> {
    await this.#commit.post('guestStopped');
    const hasLetGo = await this.#letGo.then(
      () => true,
      () => false,
    );
    if (!hasLetGo) return;
    await this.#permitted;
    await this.#commit.post('commit');
  }

  get state(): SourceState {
    return this.#commit.state;
  }

  /** Whether the guest runs at the destination, or may. */
  get mayBeGone(): boolean {
    return mayBeGone.has(this.#commit.state);
  }

  /** Where the guest is, or whether it has all its memory, is not known here. */
  get isInDoubt(): boolean {
    return this.state !== 'resumed' && (this.state !== 'released' || this.#isCutOff || this.#isOfNoUse);
  }

  /** Where it has taken over and not met the destination, it keeps nothing that is nowhere else. */
  get #isOfNoUse(): boolean {
    return this.#hasTakenOver && (this.relay?.state.connections ?? 0) === 0;
  }

  async post(event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    return await this.#commit.post(event);
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
    const state = await this.#commit.until((reached) => hasEnded(reached) || this.#isCutOff, signal);
    if (state === 'released') return;
    throw this.#commit.failure ?? new ServiceError('VMMIG_SWITCH_REFUSED', 'the destination did not take over');
  }

  /**
   * Who has asked for the switch is gone: it is given up, unless it has been decided. Resolves when nobody needs anything
   * from here any more, or all hope is gone.
   */
  async settled(): Promise<void> {
    await this.#commit.post('abandon');
    if (!this.mayBeGone || this.#isOfNoUse) return;
    await this.relay.finished.catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId } = this.#options;
    await this.#commit.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    await this.relay?.[Symbol.asyncDispose]();
    await this.#options.memory?.[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'source');
  }

  /** @throws when the relay has given up */
  #requireRelay(): void {
    if (this.#isCutOff) throw new ServiceError('VMMIG_SWITCH_REFUSED', 'the link to the destination was lost');
  }
}

function relayOptions(
  { params, inspection, streamPath, answersQemu }: SourceSwitchStart,
  memory: GuestMemory | null,
): SwitchSourceOptions {
  const { migrationId, key, connections, bandwidthBps, compress, switching } = params;
  const { reconnectTimeoutMs: reconnectTimeoutBeforeMs } = params;
  const { pageStoreLimitBytes, spillDir, reconnectTimeoutMs, holdsBack, prefetchShare } = switching!;
  return {
    socketPath: streamPath,
    qemuPid: inspection.process.pid,
    answersQemu,
    credentials: { migrationId, key: Buffer.from(key, 'base64') },
    connections,
    bandwidthBps,
    compress,
    reconnectTimeoutMs,
    reconnectTimeoutBeforeMs,
    memory,
    holdsBack,
    prefetchShare,
    store: {
      limitBytes: pageStoreLimitBytes ?? Math.floor(freemem() / 2),
      spillPath: spillDir === null ? null : join(spillDir, `${migrationId}.pages`),
    },
  };
}
