/**
 * Switch: the guest runs on the destination as soon as its last changes can be read at memory speed, and its memory
 * follows. The relays settle the commit point between them, so that the guest waits for nobody else; what the command
 * does is to say when, to watch, and to find out what became of it when something fails.
 */
import { call, type Pulled } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { abandon, findOut, unresolved } from './abandon.js';
import { toVmmigError, VmmigError } from './errors.js';
import { guestEnded } from './guestEnded.js';
import { Standstill, untilHandedOver, whatBothSay } from './handOver.js';
import { LinkWatch } from './linkWatch.js';
import { Migration, migrate, type Task } from './migration.js';
import { outcome } from './outcome.js';
import type { Prepared } from './prepared.js';
import type { MigrationReport } from './report.js';
import type { Hooks, SwitchRequest } from './requests.js';
import type { End } from './resolve.js';
import type { Side } from './sides.js';
import { untilTimeToSwitch } from './switchTime.js';
import { SwitchView } from './switchView.js';
import { tally } from './tally.js';
import { pageBytes } from './units.js';
import { type WatchedPull, watchPull } from './watchPull.js';

/** The guest runs on meanwhile; a network that is gone for longer is told. */
const reconnectTimeoutBeforeMs = 60_000;
/** Of QEMU's final pass, at memory speed. */
const finalPassMs = 20;
/** A guest that writes faster than it can be read is given more time, again and again. */
const growthIntervalMs = 2_000;
const maxFinalPassMs = 300;

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function switchOver(request: SwitchRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  return await migrate('switch', (task) => new Switch(task, request), request, hooks);
}

class Switch extends Migration {
  readonly #request: SwitchRequest;
  readonly #leave: AbortSignal | undefined;
  #view: SwitchView | null = null;
  #pulled: Pulled | null = null;
  /** Nobody needs the services any more. */
  #isOver = false;

  constructor(task: Task, request: SwitchRequest) {
    super(task);
    this.#request = request;
    this.#leave = task.leave;
  }

  protected override get leavesServices(): boolean {
    return this.isStarted && !this.#isOver;
  }

  /** A guest that is too busy for its agent is not to be kept where it is. */
  readonly agentPatienceMs = 2_000;

  override get reconnectTimeoutMs(): number {
    return Math.min(this.#request.reconnectTimeoutMs, reconnectTimeoutBeforeMs);
  }

  override get switching(): SwitchRequest {
    return this.#request;
  }

  protected async move(prepared: Prepared): Promise<void> {
    const { source, destination } = prepared;
    const { recorder, signal } = this;
    const elapsedMs = () => recorder.elapsedMs;
    using link = new LinkWatch(destination, recorder, this.reconnectTimeoutMs);
    using view = new SwitchView(prepared, recorder, { vm: this.request.vm, to: this.intent.to.name, link });
    this.#view = view;
    // The guest may be handed over from here on, whether this process lives to see it or not.
    const handedOver = whatBothSay(
      call(source.rpc, 'source.switched', {}),
      call(destination.rpc, 'destination.switched', {}),
    );
    handedOver.catch(() => {});
    const isTime = async () => {
      await untilTimeToSwitch(this.#request, view, source, elapsedMs, signal);
      if (link.isCut) await view.until(() => !link.isCut, signal);
    };
    await recorder.during('precopy', () => Promise.race([isTime(), handedOver]));
    const [{ stoppedAtMs }, { resumedAtMs }] = await recorder.during('switch-over', async () => {
      await this.journal.writeDurably('committing');
      this.isHeld = true;
      this.commit = view.commit = 'asked';
      this.giveUpScan();
      const growing = this.#allowDowntime(source);
      const standstill = new Standstill();
      try {
        return await untilHandedOver(handedOver, () => standstill.isStandstill(view.latest), signal);
      } finally {
        clearInterval(await growing);
      }
    });
    await this.#tellHandedOver(prepared, stoppedAtMs, resumedAtMs);
    await this.#pull(source.host);
  }

  async #tellHandedOver({ source, destination }: Prepared, stoppedAtMs: number, resumedAtMs: number): Promise<void> {
    const { recorder } = this;
    this.commit = 'done';
    const [sourceClock, destinationClock] = await Promise.all([source.clock, destination.clock]);
    const downtimeMs = resumedAtMs - destinationClock.offsetMs - (stoppedAtMs - sourceClock.offsetMs);
    const sinceMs = Date.now() - (resumedAtMs - destinationClock.offsetMs);
    const switchoverMs = Math.round(recorder.elapsedMs - Math.max(0, sinceMs));
    this.#view!.runsSinceMs = switchoverMs;
    this.#view!.commit = 'done';
    recorder.facts = {
      ...recorder.facts,
      switchoverMs,
      downtimeMs: Math.max(0, Math.round(downtimeMs)),
    };
    await this.journal.writeDurably('committed');
  }

  /** From here on the hosts need nobody; what is lost is the view of them. */
  async #pull(source: InventoryHost): Promise<void> {
    const { recorder, sides, intent } = this;
    this.commit = 'done';
    const watched: WatchedPull = {
      sides,
      hosts: { source, destination: intent.to },
      migrationOn: (host) => this.migrationOn(host),
      reconnectTimeoutMs: this.#request.reconnectTimeoutMs,
      takenOver: (what) => {
        const names = [what.source ? source.name : null, what.destination ? intent.to.name : null];
        const died = names.filter((name) => name !== null).join(' and on ');
        const text = `vmmig on ${died} had died and was replaced: what had come before cannot be verified as a whole`;
        recorder.notice('warn', 'VMMIG_TAKEN_OVER', text);
      },
    };
    const { pulled, sample } = await recorder.during('pull', () => watchPull(watched, this.#leave));
    this.#pulled = pulled;
    if (sample !== null && this.#view !== null) this.#view.latest = sample;
    this.#isOver = true;
    const releasedMs = Math.round(recorder.elapsedMs);
    const runsSinceMs = this.#view?.runsSinceMs ?? null;
    const exposureMs = runsSinceMs === null ? null : Math.round(releasedMs - runsSinceMs);
    const verified = pulled?.hasTakenOver === true ? null : true;
    recorder.facts = { ...recorder.facts, verified, releasedMs, exposureMs };
  }

  protected count(): void {
    const sides = [this.sides.source, this.sides.destination].filter((side) => side !== null);
    const { latest = null, restored = null } = this.#view ?? {};
    const loaded = this.#pulled ?? (restored === null ? null : { ...restored, bytesOnWire: 0 });
    this.recorder.facts = {
      ...this.recorder.facts,
      ...tally(latest, loaded, sides),
      faults: this.#pulled?.faults ?? restored?.faults ?? null,
    };
  }

  /** QEMU stops the guest when it is done, whoever watches: once it has begun, the hosts are asked where the guest is. */
  protected override async giveUp(thrown: unknown): Promise<MigrationReport> {
    if (!this.isStarted) return await abandon(this, thrown);
    const { recorder } = this;
    const phase = recorder.failedPhase ?? recorder.phase;
    await this.journal.write('rollback', { phase, commit: this.commit, error: String(thrown) }).catch(() => {});
    if (this.commit === 'done') return await this.#interrupted(thrown);
    this.commit = 'asked';
    const source = this.sides.source!.host;
    const end = await findOut(this);
    const cancelled = toVmmigError(thrown).code === 'VMMIG_CANCELLED';
    const { result, vmLocation } = outcome({ end, cancelled, mayBeHeld: true, complete: false });
    if (vmLocation === 'destination') return await this.#goOn(source, end);
    this.#isOver = vmLocation === 'source' || end === 'ended';
    if (end === 'unknown') return await recorder.finish(result, vmLocation, unresolved(this, thrown, phase));
    const error =
      end === 'ended'
        ? guestEnded(this.request.vm, source.name, thrown, phase)
        : toVmmigError(thrown, { phase, vmLocation });
    return await recorder.finish(result, vmLocation, error);
  }

  /** What failed, or was to be cancelled, came too late: the guest has been handed over. */
  async #goOn(source: InventoryHost, end: End): Promise<MigrationReport> {
    const { recorder } = this;
    if (end === 'unreleased') {
      const text = `${this.request.vm} runs on ${this.intent.to.name}, but its paused remains on ${source.name} could not be ended`;
      recorder.notice('warn', 'VMMIG_SOURCE_NOT_RELEASED', text);
    }
    try {
      await this.#pull(source);
      this.count();
      return await recorder.finish('moved', 'destination', null);
    } catch (thrown) {
      this.count();
      return await this.#interrupted(thrown);
    }
  }

  /** The guest runs on the destination, and this command has lost sight of what it still needs. */
  async #interrupted(thrown: unknown): Promise<MigrationReport> {
    const { code, message } = this.#leave?.aborted ? left : toVmmigError(thrown);
    const { vm } = this.request;
    const to = this.intent.to.name;
    const text =
      code === 'VMMIG_MEMORY_LOST'
        ? `${message}: ${this.#lost()} ${vm} runs on ${to} only until it touches them. End it there and start it again from its disk`
        : `${message}. ${vm} runs on ${to} and may still need memory from the source: run "vmmig recover ${vm}"`;
    const error = new VmmigError(code, text, { phase: 'pull', vmLocation: 'destination', retryable: false });
    return await this.recorder.finish('interrupted', 'destination', error);
  }

  #lost(): string {
    const pages = this.#view?.latest?.remaining?.bytesPages ?? 0;
    const mebibytes = ((pages * pageBytes) / 2 ** 20).toFixed(1);
    return `${pages.toLocaleString('en')} pages (${mebibytes} MiB) were nowhere else and are lost.`;
  }

  /** QEMU stops the guest by itself once the rest is small; this says what small is. */
  async #allowDowntime(source: Side): Promise<NodeJS.Timeout> {
    let downtimeLimitMs = finalPassMs;
    const allow = () => call(source.rpc, 'source.allowDowntime', { downtimeLimitMs }).catch(() => {});
    await allow();
    return setInterval(() => {
      downtimeLimitMs = Math.min(maxFinalPassMs, downtimeLimitMs * 2);
      void allow();
    }, growthIntervalMs);
  }
}

const left = { code: 'VMMIG_LEFT', message: 'The command was made to end' } as const;
