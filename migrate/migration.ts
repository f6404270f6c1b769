/**
 * What every mode of migration has in common: looking before anything is changed, letting the relays meet, asking the
 * agent, and the way out when something fails. When and how the guest is switched over is the mode's.
 */
import { call, type Params, type StartedProcess } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { abandon } from './abandon.js';
import { CacheScans } from './cacheScans.js';
import { proveDisks } from './diskProof.js';
import { VmmigError } from './errors.js';
import { Journal } from './journal.js';
import { addressOf, addressOnDestination, findingOf } from './locate.js';
import { check, prepare, understand } from './prepare.js';
import type { Intent, Prepared, Sides } from './prepared.js';
import { Recorder } from './recorder.js';
import { connectRelays, type RelaysMeeting, type SwitchSettings } from './relays.js';
import type { MigrationMode, MigrationReport } from './report.js';
import type { Hooks, MigrateRequest } from './requests.js';
import { claim } from './running.js';
import type { Side } from './sides.js';
import { startDestination, startSource } from './startQemus.js';
import { newMigrationId } from './stateDirectory.js';

const slowAgent = "the guest's agent has not answered yet: until it does, its page cache is sent";

/** A session that is not to outlast a cut. */
const shortSilenceMs = 15_000;

/** The sessions outlast what the link between the relays does; TCP takes as long again to notice that it is over. */
function sessionSilenceLimitMs(reconnectTimeoutMs: number): number {
  return shortSilenceMs + 2 * reconnectTimeoutMs;
}

/** What a mode is made with. */
export interface Task {
  readonly intent: Intent;
  readonly request: MigrateRequest;
  readonly id: string;
  readonly recorder: Recorder;
  readonly journal: Journal;
  readonly leave: AbortSignal | undefined;
}

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function migrate(
  mode: MigrationMode,
  make: (task: Task) => Migration,
  request: MigrateRequest,
  hooks: Hooks,
): Promise<MigrationReport> {
  const startedAtMs = hooks.startedAtMs ?? performance.now();
  const intent = await understand(request);
  const id = newMigrationId();
  const from = request.from ?? intent.guest.host;
  const start = { id, vm: request.vm, from, to: intent.to.name, mode };
  await using _claim = await claim(start);
  await using journal = await Journal.open(id);
  await journal.writeDurably('begin', start);
  const recorder = new Recorder(start, journal, hooks.onProgress ?? (() => {}), startedAtMs);
  await using migration = make({ intent, request, id, recorder, journal, leave: hooks.leave });
  return await migration.run(hooks.signal);
}

export abstract class Migration implements AsyncDisposable {
  readonly intent: Intent;
  readonly request: MigrateRequest;
  readonly id: string;
  readonly recorder: Recorder;
  readonly journal: Journal;
  readonly sides: Sides = { source: null, destination: null };
  /** How far the commit has come; from `asked` on the source must not resume by itself. */
  commit: 'before' | 'asked' | 'done' = 'before';
  /** The source has been told to leave the guest as it is. */
  isHeld = false;
  destinationProcess: StartedProcess | null = null;
  /** Null without an agent. */
  #scans: CacheScans | null = null;
  #relays: RelaysMeeting | null = null;
  /** Aborts what is under way: the operator, the time limit, or a host that was lost. */
  readonly #stop = new AbortController();

  constructor({ intent, request, id, recorder, journal }: Task) {
    this.intent = intent;
    this.request = request;
    this.id = id;
    this.recorder = recorder;
    this.journal = journal;
  }

  /** From the first byte of memory to the source's release. */
  protected abstract move(prepared: Prepared, scans: CacheScans | null): Promise<void>;

  /** How long QEMU does not set out for an agent that has not answered yet. What it says later counts from then on. */
  abstract readonly agentPatienceMs: number;

  /** So long the relays look for each other while the guest is the source's; 0: not at all. */
  get reconnectTimeoutMs(): number {
    return 0;
  }

  /** What the relays need for a switch; null for what is not one. */
  get switching(): SwitchSettings | null {
    return null;
  }

  /** The way out. */
  protected async giveUp(thrown: unknown): Promise<MigrationReport> {
    return await abandon(this, thrown);
  }

  /** Sums up for the report what has been moved so far. */
  protected abstract count(): void;

  protected get signal(): AbortSignal {
    return this.#stop.signal;
  }

  async run(signal?: AbortSignal): Promise<MigrationReport> {
    const { recorder } = this;
    const cancel = () => this.#stop.abort(new VmmigError('VMMIG_CANCELLED', 'the migration was cancelled'));
    if (signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    const timer = this.#limitTime();
    try {
      const prepared = await this.#preflight();
      if (recorder.findings.some(({ severity }) => severity === 'refuse')) return await this.#refuse();
      await recorder.during('prepare destination', () => this.#prepareHosts(prepared));
      await this.move(prepared, this.#scans);
      await this.#endScan();
      this.count();
      return await recorder.finish('moved', 'destination', null);
    } catch (thrown) {
      await this.#endScan();
      const finding = findingOf(thrown);
      if (finding !== null) {
        recorder.findings = [finding];
        return await this.#refuse();
      }
      this.count();
      return await this.giveUp(thrown);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Both hosts, the guest, and everything that speaks against moving it. */
  async #preflight(): Promise<Prepared> {
    const { recorder, sides, signal } = this;
    return await recorder.during('preflight', async () => {
      const onInspected = (found: Pick<Prepared, 'source' | 'agent'>) => {
        // A scan changes nothing, so it need not wait for the destination, nor for what preflight finds.
        if (!found.agent?.found) return;
        this.#scans = new CacheScans(found.source, recorder, signal);
        this.#scans.begin();
      };
      const silenceLimitMs = sessionSilenceLimitMs(this.reconnectTimeoutMs);
      const prepared = await prepare(this.intent, this.request, sides, signal, onInspected, silenceLimitMs);
      recorder.locatedAt(prepared.source.host.name);
      for (const side of [prepared.source, prepared.destination])
        void side.rpc.closed.then((error) => {
          if (error !== undefined && this.commit === 'before') this.#stop.abort(error);
        });
      // Nor need the relays: what they hold so far ends with their sessions.
      this.#relays = connectRelays(prepared, this, signal);
      const mode = this.switching === null ? 'teleport' : 'switch';
      const [findings, proofs] = await Promise.all([
        check(prepared, this.request, mode, signal),
        proveDisks(prepared, signal),
      ]);
      recorder.findings = [...findings, ...proofs.findings];
      if (proofs.unreadable.length > 0) {
        await this.#relays.listening;
        await call(prepared.source.rpc, 'source.skipDisks', { indexes: [...proofs.unreadable] }, { signal });
      }
      return prepared;
    });
  }

  async #refuse(): Promise<MigrationReport> {
    await this.#endScan();
    const reasons = this.recorder.findings.filter(({ severity }) => severity === 'refuse');
    const message = `preflight refused: ${reasons.map((reason) => reason.message).join('; ')}`;
    this.count();
    const isFound = reasons.every(({ code }) => code !== 'VMMIG_GUEST_NOT_FOUND');
    return await this.recorder.finish(
      'refused',
      isFound ? 'source' : 'unknown',
      new VmmigError('VMMIG_PREFLIGHT_REFUSED', message, { phase: 'preflight' }),
    );
  }

  /** QEMU may have begun to migrate. */
  isStarted = false;

  /** The destination's QEMU starts while the source's sets out: both take a while until the first page. */
  async #prepareHosts(prepared: Prepared): Promise<void> {
    this.isStarted = true;
    const setOut = this.#startSource(prepared);
    const started = this.#startDestination(prepared);
    const { connected } = this.#relays!;
    // All are waited for also when one fails: none may still be at work when what it did is undone.
    await Promise.allSettled([setOut, started, connected]);
    await Promise.all([setOut, started, connected]);
    if (this.#scans?.isUnderWay) this.recorder.notice('warn', 'VMMIG_AGENT_SLOW', slowAgent);
    else await this.#scans?.over;
  }

  /** A guest that is to stop does not answer any more. */
  protected giveUpScan(): void {
    this.#scans?.giveUp();
  }

  /** Nothing is told of it after the report. */
  async #endScan(): Promise<void> {
    this.giveUpScan();
    await this.#scans?.over.catch(() => {});
  }

  async #startSource(prepared: Prepared): Promise<void> {
    await this.#relays!.listening;
    await startSource(prepared, this, this.#relays!, this.signal);
  }

  async #startDestination(prepared: Prepared): Promise<void> {
    this.destinationProcess = await startDestination(prepared, this, this.#relays!, this.signal);
  }

  /** What a service on a host finds the guest and this migration by. */
  migrationOn({ name, runDir }: InventoryHost): Params<'source.pulled'> {
    const { guest, to } = this.intent;
    const address = name === to.name ? addressOnDestination(guest, this.request) : addressOf(guest);
    return { guest: address, migrationId: this.id, runDir };
  }

  #limitTime(): NodeJS.Timeout | undefined {
    const { timeoutMs } = this.request;
    if (timeoutMs === undefined) return undefined;
    const error = new VmmigError('VMMIG_TIMEOUT', `not done within ${timeoutMs} ms`, { retryable: true });
    return setTimeout(() => this.#stop.abort(error), timeoutMs);
  }

  /** Whether the guest may need the services that are at work, and this process is not to end them. */
  protected get leavesServices(): boolean {
    return false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { source, destination } = this.sides;
    const end = (side: Side | null) => (this.leavesServices ? side?.leave() : side?.[Symbol.asyncDispose]());
    await Promise.all([end(source), end(destination)]);
  }
}
