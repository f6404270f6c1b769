/**
 * Teleport: everything is put back on the destination before the guest resumes there, the page cache from the
 * shared disk. Before the commit point every way out leaves the guest running on the source.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { call, type DestinationSample, type Loaded, type Params, type ScanSummary } from '../host-service/protocol.js';
import { linkAddress } from '../hosts/index.js';
import type { ProcessId } from '../hypervisor/index.js';
import { abandon } from './abandon.js';
import { toVmmigError, VmmigError } from './errors.js';
import { Journal } from './journal.js';
import { addressOf } from './locate.js';
import { Precopy } from './precopy.js';
import { check, type Intent, type Prepared, prepare, type Sides, understand } from './prepare.js';
import { Recorder } from './recorder.js';
import type { MigrationReport } from './report.js';
import type { Hooks, MigrateRequest } from './requests.js';
import { claim } from './running.js';
import type { Side } from './sides.js';
import { newMigrationId } from './stateDirectory.js';
import { tally } from './tally.js';

const defaultMaxDowntimeMs = 300;
const lastWordsMs = 2000;
/** One connection is enough at the rates measured; see docs/benchmarks.md. */
const defaultConnections = 2;

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function teleport(request: MigrateRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  const startedAtMs = hooks.startedAtMs ?? performance.now();
  const intent = await understand(request);
  const id = newMigrationId();
  const from = request.from ?? intent.guest.host;
  const start = { id, vm: request.vm, from, to: intent.to.name, mode: 'teleport' } as const;
  await using _claim = await claim(start);
  await using journal = await Journal.open(id);
  await journal.write('begin', start);
  const recorder = new Recorder(start, journal, hooks.onProgress ?? (() => {}), startedAtMs);
  await using migration = new Teleport(intent, request, id, recorder, journal);
  return await migration.run(hooks.signal);
}

class Teleport implements AsyncDisposable {
  readonly sides: Sides = { source: null, destination: null };
  /** How far the commit has come; from `asked` on the source must not resume by itself. */
  commit: 'before' | 'asked' | 'done' = 'before';
  /** The source has been told to leave the guest as it is. */
  isHeld = false;
  destinationProcess: ProcessId | null = null;
  precopy: Precopy | null = null;
  #loaded: Loaded | null = null;
  #scanning: Promise<ScanSummary | null> = Promise.resolve(null);
  /** Aborts what is under way: the operator, the time limit, or a host that was lost. */
  readonly #stop = new AbortController();

  constructor(
    readonly intent: Intent,
    readonly request: MigrateRequest,
    readonly id: string,
    readonly recorder: Recorder,
    readonly journal: Journal,
  ) {}

  async run(signal?: AbortSignal): Promise<MigrationReport> {
    const { recorder } = this;
    const cancel = () => this.#stop.abort(new VmmigError('VMMIG_CANCELLED', 'the migration was cancelled'));
    if (signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    const timer = this.#limitTime();
    try {
      const prepared = await this.#preflight();
      if (recorder.findings.some(({ severity }) => severity === 'refuse')) return await this.#refuse();
      const [scan] = await bothSettled(
        this.#scanning,
        recorder.during('prepare destination', () => this.#prepareDestination(prepared)),
      );
      const stoppedAtMs = await this.#move(prepared, scan);
      await this.#letRun(prepared, stoppedAtMs);
      await this.#release(prepared);
      this.#count();
      return await recorder.finish('moved', 'destination', null);
    } catch (thrown) {
      this.#count();
      return await abandon(this, thrown);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Both hosts, the guest, and everything that speaks against moving it. */
  async #preflight(): Promise<Prepared> {
    const { recorder, sides } = this;
    return await recorder.during('preflight', async () => {
      const prepared = await prepare(this.intent, this.request, sides, this.#stop.signal, (found) => {
        // A scan changes nothing, so it need not wait for the destination, nor for what preflight finds.
        this.#scanning = this.#firstScan(found);
        this.#scanning.catch(() => {});
      });
      recorder.locatedAt(prepared.source.host.name);
      for (const side of [prepared.source, prepared.destination])
        void side.rpc.closed.then((error) => {
          if (error !== undefined && this.commit === 'before') this.#stop.abort(error);
        });
      recorder.findings = await check(prepared, this.#stop.signal);
      return prepared;
    });
  }

  async #refuse(): Promise<MigrationReport> {
    const reasons = this.recorder.findings.filter(({ severity }) => severity === 'refuse');
    const message = `preflight refused: ${reasons.map((reason) => reason.message).join('; ')}`;
    this.#count();
    return await this.recorder.finish(
      'refused',
      'source',
      new VmmigError('VMMIG_PREFLIGHT_REFUSED', message, { phase: 'preflight' }),
    );
  }

  async #firstScan({ source, agent }: Pick<Prepared, 'source' | 'agent'>): Promise<ScanSummary | null> {
    if (agent === null || this.request.agent === false) return null;
    return await this.recorder.during(
      'scan',
      () => this.#scan(source, 'full'),
      (scan) =>
        scan === null
          ? 'no answer'
          : `${scan.pages.toLocaleString('en')} cached pages in ${scan.runs.toLocaleString('en')} runs`,
    );
  }

  /** QEMU starts while the relays meet. */
  async #prepareDestination({ source, destination, plan }: Prepared): Promise<void> {
    const { signal } = this.#stop;
    const { stateDir, runDir } = destination.host;
    const migrationId = this.id;
    const { qmpPath, commandLine } = plan.destination;
    const start = {
      migrationId,
      runDir,
      stateDir,
      vm: this.request.vm,
      argv: [...commandLine.argv],
      cwd: commandLine.cwd,
      qmpPath,
      disks: [...plan.restorable],
    };
    const started = call(destination.rpc, 'destination.start', start, { signal }).then((process) => {
      this.destinationProcess = process;
    });
    await bothSettled(started, this.#connectRelays({ source, destination, plan }));
  }

  async #connectRelays({
    source,
    destination,
    plan,
  }: Pick<Prepared, 'source' | 'destination' | 'plan'>): Promise<void> {
    const { signal } = this.#stop;
    const { runDir, linkPorts } = destination.host;
    const migrationId = this.id;
    const key = randomBytes(32).toString('base64');
    const ports: [number, number] | null = linkPorts === undefined ? null : [linkPorts.first, linkPorts.last];
    const { port } = await call(destination.rpc, 'destination.listen', { migrationId, runDir, key, ports }, { signal });
    await call(
      source.rpc,
      'source.connect',
      {
        migrationId,
        key,
        port,
        host: await linkAddress(destination.host),
        runDir: source.host.runDir,
        connections: this.request.connections ?? defaultConnections,
        bandwidthBps: this.#bandwidthBps(source, destination),
        compress: this.request.compress ?? true,
        diskIndexes: [...plan.restorableIndexes],
      },
      { signal },
    );
  }

  /** An agent that fails costs the elision of what it would have named, not the migration: null then. */
  async #scan(source: Side, mode: 'full' | 'changes'): Promise<ScanSummary | null> {
    let scan: ScanSummary;
    try {
      scan = await call(source.rpc, 'source.scan', { mode }, { signal: this.#stop.signal });
    } catch (thrown) {
      const { code, message } = toVmmigError(thrown);
      if (!code.startsWith('VMMIG_AGENT_')) throw thrown;
      this.recorder.notice('warn', code, `the guest's agent failed, so its page cache is sent: ${message}`);
      return null;
    }
    const { agent } = this.recorder.facts;
    this.recorder.facts = {
      ...this.recorder.facts,
      agent: {
        scanMs: Math.round((agent?.scanMs ?? 0) + scan.scanMs),
        pages: scan.pages,
        scans: (agent?.scans ?? 0) + 1,
        skipped: scan.skipped,
      },
    };
    return scan;
  }

  /** From the start of QEMU's migration to the destination's QEMU holding the same memory. @returns when the guest stopped */
  async #move({ source, destination }: Prepared, scan: ScanSummary | null): Promise<number> {
    const { recorder } = this;
    const { signal } = this.#stop;
    let restored = { pages: 0, bytes: 0 };
    using _subscription = destination.rpc.onNotification('destination.sample', ({ counters }: DestinationSample) => {
      restored = { pages: counters.pages.restored, bytes: counters.bytes.restored };
    });
    using precopy = new Precopy(source, recorder, {
      maxDowntimeMs: this.request.maxDowntimeMs ?? defaultMaxDowntimeMs,
      rescan: scan === null ? null : async () => void (await this.#scan(source, 'changes')),
      restored: () => restored,
      signal,
    });
    this.precopy = precopy;
    const sent = call(source.rpc, 'source.finished', {}, { signal });
    const loaded = call(destination.rpc, 'destination.finished', {}, { signal });
    const whatFails = new Promise<never>((_, reject) => {
      loaded.catch(reject);
      sent.catch(async (error) => {
        // When the destination's relay gave up, the destination knows better why: QEMU has told there.
        if (error.code === 'VMMIG_RELAY_QEMU') await Promise.race([loaded, delay(lastWordsMs)]).catch(() => {});
        reject(error);
      });
    });
    whatFails.catch(() => {});
    await recorder.during('precopy', async () => {
      await call(source.rpc, 'source.start', {}, { signal });
      await Promise.race([precopy.untilTimeToSwitch(), whatFails]);
    });
    await recorder.during('switch-over', () => Promise.race([precopy.untilStopped(), whatFails]));
    return await recorder.during('restore', async () => {
      const [{ stoppedAtMs, sample }, result] = await Promise.all([sent, loaded]);
      precopy.latest = sample;
      this.#loaded = result;
      recorder.facts = { ...recorder.facts, verified: true };
      return stoppedAtMs - source.clockOffsetMs;
    });
  }

  /** The commit point: from here on the source does not resume by itself. */
  async #letRun({ source, destination }: Prepared, stoppedAtMs: number): Promise<void> {
    const { recorder, journal } = this;
    await recorder.during('verify', async () => {
      const { signal } = this.#stop;
      this.isHeld = true;
      await Promise.all([journal.writeDurably('committing'), call(source.rpc, 'source.hold', {}, { signal })]);
      signal.throwIfAborted();
      this.commit = 'asked';
      const { resumedAtMs } = await call(destination.rpc, 'destination.commit', {}, { timeoutMs: 30_000 });
      this.commit = 'done';
      const switchoverMs = Math.round(recorder.elapsedMs);
      await journal.writeDurably('committed');
      const localMs = resumedAtMs - destination.clockOffsetMs;
      recorder.facts = { ...recorder.facts, switchoverMs, downtimeMs: Math.max(0, Math.round(localMs - stoppedAtMs)) };
    });
  }

  /** The guest and this migration's directory on a host. */
  directoryOn({ host }: Side): Params<'source.release'> {
    return { ...addressOf(this.intent.guest), migrationId: this.id, runDir: host.runDir };
  }

  async #release({ source }: Prepared): Promise<void> {
    await this.recorder.during('release source', () =>
      call(source.rpc, 'source.release', this.directoryOn(source), { timeoutMs: 30_000 }),
    );
    this.recorder.facts = { ...this.recorder.facts, releasedMs: Math.round(this.recorder.elapsedMs) };
  }

  #count(): void {
    const sides = [this.sides.source, this.sides.destination].filter((side) => side !== null);
    this.recorder.facts = { ...this.recorder.facts, ...tally(this.precopy?.latest ?? null, this.#loaded, sides) };
  }

  /** The tightest of what the command, the source and the destination allow. */
  #bandwidthBps(source: Side, destination: Side): number | null {
    const limits = [
      this.request.bandwidthBps,
      source.host.bandwidthBitsPerSecond,
      destination.host.bandwidthBitsPerSecond,
    ].filter((limit) => limit !== undefined);
    return limits.length === 0 ? null : Math.min(...limits);
  }

  #limitTime(): NodeJS.Timeout | undefined {
    const { timeoutMs } = this.request;
    if (timeoutMs === undefined) return undefined;
    const error = new VmmigError('VMMIG_TIMEOUT', `not done within ${timeoutMs} ms`, { retryable: true });
    return setTimeout(() => this.#stop.abort(error), timeoutMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.sides.source?.[Symbol.asyncDispose](), this.sides.destination?.[Symbol.asyncDispose]()]);
  }
}

/** Waits for both also when one fails: neither may still be at work when what it did is undone. */
async function bothSettled<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([first, second]);
  return [await first, await second];
}
