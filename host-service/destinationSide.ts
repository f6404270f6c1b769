/**
 * The destination host's part in one migration. Until `commit`, whatever ends the session ends the QEMU that was
 * started here; from then on the guest is this QEMU's.
 */
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type DiskReader, openDisk } from '../disk/index.js';
import {
  acceptMigration,
  type DestinationGuest,
  endProcess,
  HypervisorError,
  isRunning,
  letRun,
  type PreviousSettings,
  type ProcessId,
  startDestination,
  waitUntilLoaded,
} from '../hypervisor/index.js';
import { QmpClient, QmpCommandError } from '../qmp/index.js';
import { DestinationRelay } from '../relay/destination/destinationRelay.js';
import type { RelayError } from '../relay/errors.js';
import { eventTimeMs } from './clock.js';
import type { DestinationSample, Params, Results } from './protocol.js';
import { releaseAll } from './releaseAll.js';
import { ServiceError } from './serviceError.js';

const sampleIntervalMs = 200;
/** For QEMU to say what was wrong with the stream. */
const lastWordsMs = 1000;
const pidFile = 'qemu.pid';
/** In the migration's directory from the moment on in which the guest may run here. */
const committingFile = 'committing';
/** Run states of a loaded guest that has never run. */
const untouched: ReadonlySet<string> = new Set(['inmigrate', 'paused', 'prelaunch']);

export class DestinationSide implements AsyncDisposable {
  readonly #notify: (sample: DestinationSample) => void;
  #directory: string | null = null;
  #guest: DestinationGuest | null = null;
  #previous: PreviousSettings | null = null;
  #relay: DestinationRelay | null = null;
  readonly #disks: DiskReader[] = [];
  #timer: NodeJS.Timeout | null = null;
  #isLoaded = false;
  #starting: Promise<ProcessId> | null = null;
  #listening!: () => void;
  /** The link may be there before QEMU is. */
  readonly #qemuListens = new Promise<void>((resolve) => {
    this.#listening = resolve;
  });

  constructor(notify: (sample: DestinationSample) => void) {
    this.#notify = notify;
  }

  /** Starts QEMU, which waits for the guest, and opens the disks it will be restored from. */
  async start(params: Params<'destination.start'>, signal: AbortSignal): Promise<ProcessId> {
    this.#starting = this.#start(params, signal);
    return await this.#starting;
  }

  async #start(params: Params<'destination.start'>, signal: AbortSignal): Promise<ProcessId> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await mkdir(params.stateDir, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#guest = await startDestination({
      argv: params.argv,
      cwd: params.cwd,
      logPath: join(params.stateDir, `${params.vm}.log`),
      pidPath: join(directory, pidFile),
      qmpPath: params.qmpPath,
      signal,
    });
    this.#previous = await acceptMigration(this.#guest, `unix:${join(directory, 'incoming')}`, { signal });
    for (const disk of params.disks) this.#disks.push(await openDisk({ path: disk.path, format: disk.format }));
    this.#listening();
    return { pid: this.#guest.pid, startTime: this.#guest.startTime };
  }

  /** Listens for the source relay. What comes before QEMU is there waits for it. */
  async listen({ migrationId, runDir, key, ports }: Params<'destination.listen'>): Promise<{ port: number }> {
    this.#relay = await DestinationRelay.start({
      credentials: { migrationId, key: Buffer.from(key, 'base64') },
      listen: ports === null ? {} : { ports },
      qemuSocketPath: join(runDir, migrationId, 'incoming'),
      qemuListens: this.#qemuListens,
      disks: this.#disks,
    });
    this.#timer = setInterval(() => {
      const { counters, pendingRestores } = this.#relay!.state;
      this.#notify({ counters, pendingRestores });
    }, sampleIntervalMs);
    // Nobody may be left to ask for it when the network is gone, and without the link this QEMU is of no use.
    this.#relay.finished.catch(async () => {
      await delay(lastWordsMs);
      await this.#endGuest().catch(() => {});
    });
    return { port: this.#relay.port };
  }

  /** Resolves when QEMU has loaded everything, and it was found equal to the source's. */
  async finished(signal: AbortSignal): Promise<Results['destination.finished']> {
    const loaded = waitUntilLoaded(this.#guest!, { signal });
    loaded.catch(() => {});
    await this.#relay!.finished.catch((thrown: RelayError) => {
      // QEMU's own reason is the better one when it hung up on the relay.
      if (thrown.code === 'VMMIG_RELAY_QEMU') return loaded;
      throw thrown;
    });
    await loaded;
    await this.#previous!.restore({ signal });
    this.#stopSampling();
    this.#isLoaded = true;
    const { counters, bytesOnWire } = this.#relay!.state;
    return { counters, bytesOnWire };
  }

  /**
   * Lets the guest run here. A QEMU that refuses is ended before that is told; one that has accepted keeps the guest,
   * whatever becomes of it; about one that did not answer nothing is known, and it is left as it is.
   */
  async commit(): Promise<Results['destination.commit']> {
    const guest = this.#guest;
    if (guest === null || !this.#isLoaded)
      throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no loaded guest to let run');
    const resumed = guest.qmp.waitFor('RESUME', { timeoutMs: 10_000 }).then(eventTimeMs);
    resumed.catch(() => {});
    await writeFile(join(this.#directory!, committingFile), '', { mode: 0o600 });
    guest.release();
    try {
      await letRun(guest);
    } catch (thrown) {
      if (!(thrown instanceof HypervisorError)) throw thrown;
      if (thrown.cause instanceof QmpCommandError) {
        await endProcess(guest);
        throw thrown;
      }
    }
    return { resumedAtMs: await resumed.catch(() => Date.now()) };
  }

  /**
   * What became of a commit whose answer was lost. A QEMU that surely has not run the guest is ended, no other; one that
   * ended by itself after it was asked may have run it, and written to its disks.
   */
  async resolve(
    { qmpPath, process, runDir, migrationId }: Params<'destination.resolve'>,
    signal: AbortSignal,
  ): Promise<Results['destination.resolve']> {
    const wasAsked = await access(join(runDir, migrationId, committingFile)).then(
      () => true,
      () => false,
    );
    if (process === null || !(await isRunning(process))) return wasAsked ? 'unknown' : 'ended';
    try {
      const qmp = this.#guest?.qmp ?? (await QmpClient.connect({ path: qmpPath }, { signal, timeoutMs: 5_000 }));
      const { status } = await qmp.execute('query-status', {}, { signal, timeoutMs: 5_000 });
      if (!untouched.has(status)) {
        await rm(join(runDir, migrationId), { recursive: true, force: true });
        return 'running';
      }
    } catch {
      return 'unknown';
    }
    await endProcess(process);
    return 'ended';
  }

  /** Ends the QEMU that was started here; also one that another service left behind. */
  async rollback({ process, runDir, migrationId }: Params<'destination.rollback'>): Promise<null> {
    const directory = join(runDir, migrationId);
    // Kept until QEMU is released, so it tells of one whose start was never reported.
    const [pid, startTime] = (await readFile(join(directory, pidFile), 'utf8').catch(() => '')).split(' ').map(Number);
    await this.#dispose();
    const left = process ?? (pid && startTime ? { pid, startTime } : null);
    if (left !== null && (await isRunning(left))) await endProcess(left);
    await rm(directory, { recursive: true, force: true });
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose();
  }

  async #dispose(): Promise<void> {
    this.#stopSampling();
    await this.#starting?.catch(() => {});
    await releaseAll([
      () => this.#relay?.[Symbol.asyncDispose](),
      () => this.#endGuest(),
      ...this.#disks.splice(0).map((disk) => () => disk[Symbol.asyncDispose]()),
      () => this.#directory && rm(this.#directory, { recursive: true, force: true }),
    ]);
  }

  /** QEMU, unless the guest may run in it. */
  async #endGuest(): Promise<void> {
    this.#isLoaded = false;
    await this.#guest?.[Symbol.asyncDispose]();
  }

  #stopSampling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
