/**
 * The destination host's part in a switch: the relay, and the destination's side of the commit point. Once the guest
 * may run here, this outlives whoever has asked for the migration, until all of its memory is here.
 */
import { HypervisorError, type ProcessId, processId } from '../../hypervisor/index.js';
import { SwitchDestination, type SwitchDestinationOptions } from '../../relay/destination/switchDestination.js';
import { RelayError } from '../../relay/errors.js';
import { type DestinationState, type Ledger, removeLedger, updateLedger, writeLedger } from '../commit/index.js';
import { type Control, serveControl } from '../control.js';
import { DestinationCommit } from '../destinationCommit.js';
import type { ArrivedGuest } from '../guest/arrivedGuest.js';
import { newLedger } from '../newLedger.js';
import type { GuestAddress, Pulled } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import { concludeDestination } from './orphans.js';
import { keepVigil } from './vigil.js';
import { yieldToFirstMoments } from './yielding.js';

export interface DestinationSwitchOptions {
  readonly runDir: string;
  readonly migrationId: string;
  readonly relay: SwitchDestinationOptions;
  readonly peer: { readonly host: string; readonly runDir: string };
  readonly guestAddress: GuestAddress;
  /** Null before QEMU has been started. */
  readonly guest: () => Promise<ArrivedGuest | null>;
  /** What is left to be done when all of the guest's memory is here. */
  readonly concluded: () => Promise<void>;
  /** The relay has given up on a guest that may run here: another service is to be able to take over. */
  readonly cutOff: () => Promise<void>;
  /** The guest is about to run here. */
  readonly permitted?: () => void;
}

export type TakeOverNeeds = Omit<NonNullable<Ledger['takeOver']>, 'ports' | 'reconnectTimeoutMs'>;

const ended: ReadonlySet<DestinationState> = new Set(['ended', 'unended']);
const mayRun: ReadonlySet<DestinationState> = new Set([
  'permitted',
  'deciding',
  'starting',
  'running',
  'doubtful',
  'looking',
]);
/** Of what QEMU has printed. */
const logLines = 4;

export class DestinationSwitch implements AsyncDisposable {
  relay!: SwitchDestination;
  /** Resolves when all of the guest's memory is here, with what came of the pull. */
  whole!: Promise<Pulled>;
  readonly #options: DestinationSwitchOptions;
  readonly #commit: DestinationCommit;
  #control: Control | null = null;
  #interruptedAtMs: number | null = null;
  /** Having taken over: before QEMU has a stream again it cannot be asked. */
  #goingOn: Promise<void> = Promise.resolve();
  /** The relay has given up. */
  #isCutOff = false;
  #isSourceGone = false;

  private constructor(options: DestinationSwitchOptions, state: DestinationState) {
    this.#options = options;
    this.#commit = new DestinationCommit(state, {
      runDir: options.runDir,
      migrationId: options.migrationId,
      arrived: options.guest,
      phaseOnceItRuns: 'pulling',
      tell: (answer) => this.#tell(answer),
    });
  }

  /** Listens for the source relay. */
  static async start(options: DestinationSwitchOptions): Promise<DestinationSwitch> {
    const own = new DestinationSwitch(options, 'loading');
    const { runDir, migrationId, peer, guestAddress: guest } = options;
    const facts = { migrationId, mode: 'switch', guest, peer, link: null } as const;
    await writeLedger(runDir, await newLedger('destination', facts, null));
    await own.#begin(() => void own.#loaded());
    return own;
  }

  /**
   * Takes the place of one that died after it had been decided that the guest runs here.
   * @param goesOn - QEMU has its stream again: its monitor is to be connected
   */
  static async takeOver(options: DestinationSwitchOptions, goesOn: () => Promise<void>): Promise<DestinationSwitch> {
    const own = new DestinationSwitch(options, 'doubtful');
    const { runDir, migrationId } = options;
    await updateLedger(runDir, { migrationId, role: 'destination' }, { service: await processId(process.pid) });
    let hasSettled = () => {};
    own.#goingOn = new Promise((resolve) => {
      hasSettled = resolve;
    });
    await own.#begin(() => {
      goesOn()
        .catch((error) => own.#commit.noteFailure(error))
        .then(hasSettled)
        .then(() => own.#commit.post('ask'));
    });
    own.relay.finished.finally(hasSettled).catch(() => {});
    return own;
  }

  async #begin(loaded: () => void): Promise<void> {
    const options = this.#options;
    const { runDir, migrationId } = options;
    this.relay = await SwitchDestination.start(options.relay, {
      permitted: () => {
        options.permitted?.();
        void this.#commit.post('go');
      },
      loaded,
      interrupted: () => {
        this.#interruptedAtMs = Date.now();
      },
      resumed: () => {
        this.#interruptedAtMs = null;
        void this.#commit.post('linkBack');
      },
    });
    this.relay.finished.catch(async (error) => {
      this.#isCutOff = true;
      await this.#commit.failed(await this.#explained(error));
      if (this.mayRun) await this.#giveWay();
    });
    this.whole = this.#finish();
    this.whole.catch(() => {});
    this.#control = await serveControl(runDir, migrationId, 'destination', {
      status: async () => ({
        commit: this.state,
        interruptedAtMs: this.#interruptedAtMs,
        resumedAtMs: this.#commit.resumedAtMs,
        port: this.relay.port,
        ...this.relay.state,
      }),
      pulled: () => this.whole,
      awaitSource: async () => {
        if (this.state !== 'running') throw new ServiceError('VMMIG_TAKEOVER', 'whether the guest runs is not known');
        await this.relay.awaitAnotherSource();
        return { port: this.relay.port };
      },
      conclude: async () => this.conclude(),
      post: async () => ({ state: await this.ask() }),
    });
  }

  get state(): DestinationState {
    return this.#commit.state;
  }

  get mayRun(): boolean {
    return mayRun.has(this.#commit.state);
  }

  /** Whether the guest runs here, or has all its memory, is not known. */
  get isInDoubt(): boolean {
    return this.state !== 'ended' && (this.state !== 'running' || this.#isCutOff);
  }

  /** The source has nothing of the guest any more: nobody will ask what became of it, once it has ended here. */
  conclude(): void {
    this.#isSourceGone = true;
  }

  /** Does the guest run here? If not, it never will. */
  async ask(): Promise<DestinationState> {
    await this.#goingOn;
    return await this.#commit.post('ask');
  }

  /** Its QEMU has ended. The relay may have no stream to it yet; once it may run here, that is for others to find out. */
  async lostGuest(error: unknown): Promise<void> {
    if (this.state !== 'loading') return;
    const ended = new RelayError('VMMIG_RELAY_QEMU', `the destination's QEMU has ended: ${String(error)}`, error);
    await this.#commit.failed(await this.#explained(ended));
  }

  /** Resolves when the guest runs here. @throws when it never will */
  async switched(signal: AbortSignal): Promise<{ resumedAtMs: number }> {
    const state = await this.#commit.until((reached) => reached === 'running' || ended.has(reached), signal);
    if (state === 'running') return { resumedAtMs: this.#commit.resumedAtMs! };
    throw this.#commit.failure ?? new ServiceError('VMMIG_SWITCH_REFUSED', 'the guest was not let run here');
  }

  /**
   * QEMU has been started, or is about to be by libvirt. Noted before it outlives this service.
   * @param needs - what another service would need to take over; null: none can
   */
  async started(qemu: ProcessId | null, needs: TakeOverNeeds | null): Promise<void> {
    const { runDir, migrationId, relay } = this.#options;
    const { credentials, listen, reconnectTimeoutMs } = relay;
    const ports: [number, number] | null = listen.ports === undefined ? null : [...listen.ports];
    await updateLedger(
      runDir,
      { migrationId, role: 'destination' },
      {
        process: qemu === null ? null : { pid: qemu.pid, startTime: qemu.startTime },
        phase: 'moving',
        link: { host: '::', port: this.relay.port, key: credentials.key.toString('base64') },
        ...(needs === null ? {} : { takeOver: { ...needs, ports, reconnectTimeoutMs } }),
      },
    );
  }

  /**
   * Who has asked for the switch is gone: it is given up, unless the guest may run here. Resolves when all of its memory is
   * here, or all hope is gone, and with it the guest where nobody else could bring it the rest.
   */
  async settled(): Promise<void> {
    await this.#commit.post('abandon');
    if (!this.mayRun) return;
    await this.whole.catch(() => {});
    const { runDir, migrationId, guestAddress: guest } = this.#options;
    if (this.#isSourceGone && this.isInDoubt) await keepVigil({ runDir, migrationId, guest }).catch(() => {});
  }

  /** Whoever waits for it. */
  async #finish(): Promise<Pulled> {
    await this.relay.finished;
    await this.#options.concluded();
    const { counters, bytesOnWire, faults, hasTakenOver } = this.relay.state;
    return { counters, bytesOnWire, faults, hasTakenOver };
  }

  async #loaded(): Promise<void> {
    try {
      await (await this.#options.guest())!.ready();
      await this.#commit.post('loaded');
    } catch (error) {
      await this.#commit.failed(error);
    }
  }

  /** Nobody is to take this for a service that is at work. */
  async #giveWay(): Promise<void> {
    const control = this.#control;
    this.#control = null;
    await control?.[Symbol.asyncDispose]();
    await this.#options.cutOff();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { runDir, migrationId, guestAddress: guest } = this.#options;
    await this.#commit.post('abandon');
    await this.#control?.[Symbol.asyncDispose]();
    await this.relay[Symbol.asyncDispose]();
    if (!this.isInDoubt) await removeLedger(runDir, migrationId, 'destination');
    else if (this.#isSourceGone) await concludeDestination({ runDir, migrationId, guest });
  }

  #tell(answer: 'tellRunning' | 'tellRefused'): void {
    if (answer === 'tellRunning') {
      yieldToFirstMoments();
      return this.relay.tellRunning();
    }
    const { failure } = this.#commit;
    this.relay.tellRefused(failure instanceof Error ? failure.message : 'it was given up');
  }

  /** QEMU's own reason is the better one when it hung up on the relay. */
  async #explained(error: RelayError): Promise<Error> {
    const guest = await this.#options.guest();
    if (error.code !== 'VMMIG_RELAY_QEMU' || guest === null || this.state === 'running') return error;
    const said = (await guest.lastWords().catch(() => '')).split('\n').slice(-logLines).join('\n');
    return new HypervisorError('VMMIG_DESTINATION_LOAD', `the guest could not be loaded: ${said || error.message}`);
  }
}
