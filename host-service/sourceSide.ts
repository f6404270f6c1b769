/**
 * The source host's part in one migration. Before the commit point, whatever ends the session makes the guest go on here;
 * from there on it stays as it is, because by then it may run on the destination.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type GuestInspection, HypervisorError } from '../hypervisor/index.js';
import type { SourceRelay } from '../relay/source/sourceRelay.js';
import type { SwitchSource } from '../relay/source/switchSource.js';
import { CallerPatience } from './callerSilence.js';
import { readLedger, type SourceState } from './commit/index.js';
import { DirectSource } from './guest/directSource.js';
import { removeStreamPath } from './guest/libvirtPaths.js';
import { LibvirtSource } from './guest/libvirtSource.js';
import type { SourceGuest } from './guest/sourceGuest.js';
import { GuestCache } from './guestCache.js';
import { type FateOf, MemoryAhead } from './memoryAhead.js';
import type { Params, Results, ScanSummary, SourceSample } from './protocol.js';
import { aheadLimitBytes, type OpenReadableMemory, openReadableMemory } from './readableMemory.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';
import { finishDowntimeLimitMs, SourceDeparture } from './sourceDeparture.js';
import { SourceSampling } from './sourceSampling.js';
import { hintLimitBytes, type OpenMemory, openGuestMemory } from './switching/guestMemory.js';
import { findSourceRemains } from './switching/keptMemory.js';
import { hasEnded } from './switching/leftGuest.js';
import { type OrphanedMigration, postToSource, pulledElsewhere, removeLostSource } from './switching/orphans.js';
import { SourceSwitch } from './switching/sourceSwitch.js';
import { findSourceAtWork, reconnectSource } from './switching/takeover.js';
import { SourceTeleport } from './teleporting/sourceTeleport.js';
import { untilAborted } from './untilAborted.js';

const undoTimeoutMs = 30_000;

export class SourceSide implements AsyncDisposable {
  readonly #sampling: SourceSampling;
  readonly #cache = new GuestCache();
  #guest: SourceGuest | null = null;
  #isDomain = false;
  #inspection: GuestInspection | null = null;
  #relay: SourceRelay | SwitchSource | null = null;
  #switch: SourceSwitch | null = null;
  #teleport: SourceTeleport | null = null;
  /** Of a switch, where the guest's memory is kept in files: QEMU has next to nothing to copy. */
  #memory: OpenMemory | null = null;
  #directory: string | null = null;
  #migrationId = '';
  #agentPatienceMs = 0;
  #departure: SourceDeparture | null = null;
  /** Of a teleport. */
  #ahead: MemoryAhead | null = null;
  /** Likewise; null where it cannot be read. */
  #readable: Promise<OpenReadableMemory | null> = Promise.resolve(null);
  readonly #released = new AbortController();
  readonly #patience = new CallerPatience();
  /** It runs nowhere: there is nothing to find it by any more. */
  #guestHasEnded = false;

  constructor(notify: (sample: SourceSample) => void) {
    const look = () => ({
      relay: this.#relay!,
      monitor: this.#switch?.state === 'released' ? null : (this.#guest?.monitor ?? null),
      switching: this.#switch?.relay ?? null,
      isInFiles: this.#memory !== null,
      ahead: this.#ahead?.estimate(this.#fateOf) ?? null,
    });
    this.#sampling = new SourceSampling(look, notify);
  }

  async inspect(guest: Params<'source.inspect'>, signal: AbortSignal): Promise<Results['source.inspect']> {
    const { libvirt } = guest;
    this.#isDomain = libvirt !== undefined;
    this.#guest ??= libvirt ? new LibvirtSource(libvirt) : await DirectSource.open(guest, signal);
    const own = this.#guest;
    const inspection = await own.inspect(signal);
    this.#inspection = inspection;
    const domain = await own.inspectForLibvirt(signal);
    if (guest.noAgent) return { inspection, domain, agent: null };
    return { inspection, domain, agent: await this.#cache.find(own, inspection, signal) };
  }

  scan(params: Params<'source.scan'>, signal: AbortSignal): Promise<ScanSummary> {
    return this.#cache.scan(params, signal);
  }

  /** How long the caller may be silent. */
  get silenceLimitMs(): number {
    return this.#patience.limitMs;
  }

  /** Listens for QEMU, whose stream waits until the relays have met. */
  async listen(params: Params<'source.listen'>): Promise<null> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#cache.useDisks(params.diskIndexes);
    this.#migrationId = params.migrationId;
    this.#agentPatienceMs = params.agentPatienceMs;
    this.#patience.extend(params.reconnectTimeoutMs);
    const guest = this.#guest!;
    const streamPath = await guest.streamPath(params.migrationId, directory);
    this.#relay = await this.#startRelay(params, streamPath);
    this.#relay.finished.catch(() => this.#patience.end());
    const credentials = { migrationId: params.migrationId, key: Buffer.from(params.key, 'base64') };
    const what = { guest, inspection: this.#inspection!, streamPath, directory, credentials };
    this.#departure = new SourceDeparture(
      { ...what, switching: this.#switch, memory: this.#memory },
      {
        stopped: () => this.#guestStopped(),
        lost: (error) => {
          // Where its memory comes through a stream, that has broken, too.
          if (this.#memory !== null) void this.#switch?.lostGuest(error);
        },
        touched: (pages) => this.#sampling.touched(pages),
      },
    );
    if (this.#switch !== null) void this.#departure.findUse(params.watchesUse);
    else this.#ahead = new MemoryAhead(guest.monitor, this.#inspection!, params);
    if (this.#memory === null) {
      const limitBytes = this.#switch === null ? aheadLimitBytes : hintLimitBytes;
      const memory = openReadableMemory(guest.monitor, this.#inspection!, limitBytes, this.#released.signal);
      this.#readable = memory.catch(() => null);
    }
    this.#cache.useRelay(this.#relay);
    return null;
  }

  skipDisks(params: Params<'source.skipDisks'>): null {
    this.#cache.skipDisks(params);
    return null;
  }

  /** Meets the destination relay, and lets QEMU's stream in once there is a map of what need not be sent. */
  async connect({ peerBootId, ...endpoint }: Params<'source.connect'>, signal: AbortSignal): Promise<null> {
    if (this.#relay === null) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no relay to connect');
    await (this.#switch ?? this.#teleport)!.knowPeer(peerBootId);
    await this.#relay.connect(endpoint);
    // Of a switch, what the guest uses may go before more is known.
    if (this.#switch !== null) void this.#sendAhead();
    await this.#cache.answered(this.#agentPatienceMs);
    if (this.#cache.isKnown && this.#teleport !== null) void this.#sendAhead();
    if (this.#isDomain) await untilAborted(this.#departure!.isIterating, signal);
    this.#relay.begin();
    return null;
  }

  /** Until QEMU sends by itself. Not what the destination may find on its disk. */
  async #sendAhead(): Promise<void> {
    const memory = await this.#readable;
    if (memory === null) return;
    // It costs a while of the link's that was free.
    await (this.#switch ?? this.#teleport)?.relay.sendAhead(memory).catch(() => {});
  }

  /** And the source's side of the commit point. */
  async #startRelay(params: Params<'source.listen'>, streamPath: string): Promise<SourceRelay | SwitchSource> {
    const guest = this.#guest!;
    const inspection = this.#inspection!;
    const limits = () => AbortSignal.timeout(undoTimeoutMs);
    const common = {
      ...{ params, streamPath, inspection },
      answersQemu: this.#isDomain,
      holdGuest: () => guest.hold(),
      endQemu: () => this.#endQemu(limits()),
    };
    if (params.switching === null) {
      this.#teleport = await SourceTeleport.start({
        ...common,
        resumeGuest: () => this.#goOn(inspection.running, limits()),
      });
      return this.#teleport.relay;
    }
    this.#memory = await openGuestMemory(guest.monitor, inspection);
    this.#switch = await SourceSwitch.start({
      ...common,
      ...{ runDir: params.runDir, migrationId: params.migrationId, memory: this.#memory },
      explained: (failure: Error) => guest.explained(failure),
      resumeGuest: () => this.#undo(inspection.running, limits()),
      pulled: () => this.#pulled(),
    });
    return this.#switch.relay;
  }

  /** Lets QEMU migrate into the relay. */
  async start(params: Params<'source.start'>, signal: AbortSignal): Promise<null> {
    this.#ahead?.watch(this.#fateOf);
    await this.#departure!.begin(params, this.#cache.answered(this.#agentPatienceMs), signal);
    this.#sampling.start();
    return null;
  }

  readonly #fateOf: FateOf = (block, page) => this.#teleport!.relay.fateOf(block, page);

  #guestStopped(): void {
    // A guest that stands still is not kept for a caller who may be gone.
    this.#patience.end();
    this.#relay?.guestStopped();
    this.#sampling.guestStopped();
  }

  /** QEMU goes through the guest's memory as fast as the link takes it. */
  keepUp(): null {
    this.#switch!.relay.keepUp();
    return null;
  }

  async throttle(signal: AbortSignal): Promise<null> {
    await this.#guest!.throttle(signal);
    return null;
  }

  async switchOver(signal: AbortSignal): Promise<null> {
    return await this.allowDowntime({ downtimeLimitMs: finishDowntimeLimitMs }, signal);
  }

  /** From now on QEMU stops the guest as soon as the rest takes no longer than this at memory speed. */
  async allowDowntime({ downtimeLimitMs }: Params<'source.allowDowntime'>, signal: AbortSignal): Promise<null> {
    await this.#cache.rest();
    await this.#departure!.allowDowntime(downtimeLimitMs, signal);
    return null;
  }

  /** Resolves when the guest runs on the destination, and QEMU has ended here. */
  async switched(signal: AbortSignal): Promise<Results['source.switched']> {
    await this.#switch!.switched(signal);
    return { stoppedAtMs: await this.#departure!.stoppedAtMs, sample: this.#sampling.view() };
  }

  /** Resolves when the destination has everything. */
  async pulled(migration: OrphanedMigration, signal: AbortSignal): Promise<Results['source.pulled']> {
    if (this.#switch === null) return await pulledElsewhere(migration, 'source', signal);
    return await untilAborted(this.#pulled(), signal);
  }

  async #pulled(): Promise<{ readonly sample: SourceSample }> {
    await this.#relay!.finished;
    this.#sampling.stop();
    return { sample: this.#sampling.view() };
  }

  /** To the commit point's source side, which may be in another service. */
  async post(migration: OrphanedMigration, event: 'abandon' | 'release' | 'resume'): Promise<Results['source.post']> {
    const ledger = await readLedger(migration.runDir, migration.migrationId, 'source').catch(() => null);
    const state = await this.#post(migration, event);
    this.#guestHasEnded = state === 'kept' && (await hasEnded(ledger));
    return { state, guestHasEnded: this.#guestHasEnded };
  }

  async #post(migration: OrphanedMigration, event: 'abandon' | 'release' | 'resume'): Promise<SourceState> {
    const commitPoint = this.#switch ?? this.#teleport;
    if (commitPoint !== null) return await commitPoint.post(event);
    // This is the service that began, and nothing came of it.
    if (this.#guest !== null) return 'resumed';
    return await postToSource(migration, event);
  }

  /** Another relay waits at the destination, or that needs nothing any more. @throws RelayError, ServiceError */
  async reconnect({ runDir, migrationId, endpoint }: Params<'source.reconnect'>): Promise<null> {
    if (this.#switch !== null) await this.#switch.reconnect(endpoint);
    else await reconnectSource(runDir, migrationId, endpoint);
    return null;
  }

  /** Takes the place of a service that died after the guest had gone; the destination is to be met by `reconnect`. */
  async takeOver({ runDir, migrationId }: OrphanedMigration, signal: AbortSignal): Promise<Results['source.takeOver']> {
    const atWork = await findSourceAtWork(runDir, migrationId);
    if (atWork !== null) return atWork;
    const remains = await findSourceRemains(runDir, migrationId).catch(async (thrown) => {
      if (thrown.code === 'VMMIG_MEMORY_LOST') await removeLostSource({ runDir, migrationId });
      throw thrown;
    });
    this.#memory = remains.memory;
    this.#migrationId = migrationId;
    this.#switch = await SourceSwitch.takeOver(remains, { runDir, pulled: () => this.#pulled() }, signal);
    this.#relay = this.#switch.relay;
    this.#directory = join(runDir, migrationId);
    this.#sampling.start();
    return 'waiting';
  }

  /** Resolves when this service is of no use to the guest any more. */
  async settled(): Promise<void> {
    await (this.#switch ?? this.#teleport)?.settled();
  }

  /** Resolves when QEMU has sent everything and the destination's memory was found equal. */
  async finished(signal: AbortSignal): Promise<Results['source.finished']> {
    const guest = this.#guest!;
    const finished = Promise.race([this.#relay!.finished, guest.lost()]).catch(async (thrown) => {
      throw await guest.explained(thrown);
    });
    await untilAborted(finished, signal);
    this.#sampling.heard(await guest.sent(signal));
    await this.#teleport?.complete();
    return { stoppedAtMs: await this.#departure!.stoppedAtMs, sample: this.#sampling.view() };
  }

  /** From here on the guest may be let run on the destination. Refused once it may have been let run here again. */
  async hold(): Promise<null> {
    if (this.#teleport === null)
      throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no complete migration to hold');
    await this.#teleport.hold();
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sampling.stop();
    this.#released.abort();
    await releaseAll([
      () => this.#departure?.[Symbol.dispose](),
      () => this.#ahead?.[Symbol.dispose](),
      () => this.#switch?.[Symbol.asyncDispose](),
      () => this.#teleport?.[Symbol.asyncDispose](),
      async () => (await this.#readable)?.[Symbol.asyncDispose](),
      () => this.#cache[Symbol.asyncDispose](),
      () => this.#guest?.[Symbol.asyncDispose](),
      () => this.#isDomain && this.#migrationId !== '' && removeStreamPath(this.#migrationId),
      // In doubt, it is what `recover` finds the guest by.
      () =>
        this.#directory &&
        (this.#guestHasEnded || !(this.#switch ?? this.#teleport)?.isInDoubt) &&
        rm(this.#directory, { recursive: true, force: true }),
    ]);
  }

  async #undo(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    this.#sampling.stop();
    this.#relay?.abort();
    await this.#guest!.undo(wasRunning, signal);
  }

  /** The guest runs here as before, also where QEMU has not been touched yet. */
  async #goOn(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    if (this.#guest!.hasSetOut) await this.#undo(wasRunning, signal);
    const { running, status } = await this.#guest!.monitor.execute('query-status', {}, { signal });
    if (wasRunning && !running)
      throw new HypervisorError('VMMIG_RESUME', `the guest does not run: QEMU calls it "${status}"`);
  }

  async #endQemu(signal: AbortSignal): Promise<void> {
    // Of a switch there is still a lot to tell.
    if (this.#switch === null) this.#sampling.stop();
    await this.#cache[Symbol.asyncDispose]();
    await this.#guest!.release(signal);
  }
}
