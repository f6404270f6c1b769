/**
 * The destination host's part in one migration. Until `commit`, whatever ends the session ends the QEMU that was
 * started here; from then on the guest is this QEMU's.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type DiskReader, openDisk } from '../disk/index.js';
import {
  acceptMigration,
  type DestinationGuest,
  endProcess,
  isRunning,
  letRun,
  type PreviousSettings,
  type ProcessId,
  startDestination,
  waitUntilLoaded,
} from '../hypervisor/index.js';
import { QmpClient } from '../qmp/index.js';
import { DestinationRelay } from '../relay/destination/destinationRelay.js';
import { eventTimeMs } from './clock.js';
import type { DestinationSample, Params, Results } from './protocol.js';

const sampleIntervalMs = 200;

export class DestinationSide implements AsyncDisposable {
  readonly #notify: (sample: DestinationSample) => void;
  #directory: string | null = null;
  #guest: DestinationGuest | null = null;
  #previous: PreviousSettings | null = null;
  #relay: DestinationRelay | null = null;
  readonly #disks: DiskReader[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(notify: (sample: DestinationSample) => void) {
    this.#notify = notify;
  }

  /** Starts QEMU, which waits for the guest, and opens the disks it will be restored from. */
  async start(params: Params<'destination.start'>, signal: AbortSignal): Promise<ProcessId> {
    const directory = join(params.runDir, params.migrationId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await mkdir(params.stateDir, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#guest = await startDestination({
      argv: params.argv,
      cwd: params.cwd,
      logPath: join(params.stateDir, `${params.vm}.log`),
      pidPath: join(directory, 'qemu.pid'),
      qmpPath: params.qmpPath,
      signal,
    });
    this.#previous = await acceptMigration(this.#guest, `unix:${join(directory, 'incoming')}`, { signal });
    for (const disk of params.disks) this.#disks.push(await openDisk({ path: disk.path, format: disk.format }));
    return { pid: this.#guest.pid, startTime: this.#guest.startTime };
  }

  async listen({ migrationId, key, ports }: Params<'destination.listen'>): Promise<{ port: number }> {
    this.#relay = await DestinationRelay.start({
      credentials: { migrationId, key: Buffer.from(key, 'base64') },
      listen: ports === null ? {} : { ports },
      qemuSocketPath: join(this.#directory!, 'incoming'),
      disks: this.#disks,
    });
    this.#timer = setInterval(() => {
      const { counters, pendingRestores } = this.#relay!.state;
      this.#notify({ counters, pendingRestores });
    }, sampleIntervalMs);
    return { port: this.#relay.port };
  }

  /** Resolves when QEMU has loaded everything, and it was found equal to the source's. */
  async finished(signal: AbortSignal): Promise<Results['destination.finished']> {
    const loaded = waitUntilLoaded(this.#guest!, { signal });
    // QEMU's own reason is the better one when it hung up on the relay.
    await Promise.race([loaded, this.#relay!.finished.catch(() => loaded)]);
    await Promise.all([loaded, this.#relay!.finished]);
    await this.#previous!.restore({ signal });
    this.#stopSampling();
    const { counters, bytesOnWire } = this.#relay!.state;
    return { counters, bytesOnWire };
  }

  /** Lets the guest run here. A QEMU that cannot is ended before the failure is told. */
  async commit(): Promise<Results['destination.commit']> {
    const guest = this.#guest!;
    const resumed = guest.qmp.waitFor('RESUME', { timeoutMs: 10_000 }).then(eventTimeMs);
    resumed.catch(() => {});
    guest.release();
    try {
      await letRun(guest);
    } catch (thrown) {
      await endProcess(guest);
      throw thrown;
    }
    return { resumedAtMs: await resumed };
  }

  /** What became of a commit whose answer was lost. A QEMU that surely does not run the guest is ended, no other. */
  async resolve(
    { qmpPath, process }: Params<'destination.resolve'>,
    signal: AbortSignal,
  ): Promise<Results['destination.resolve']> {
    if (process === null || !(await isRunning(process))) return 'ended';
    try {
      const qmp = this.#guest?.qmp ?? (await QmpClient.connect({ path: qmpPath }, { signal, timeoutMs: 5_000 }));
      const { running } = await qmp.execute('query-status', {}, { signal, timeoutMs: 5_000 });
      if (running) return 'running';
    } catch {
      return (await isRunning(process)) ? 'unknown' : 'ended';
    }
    await endProcess(process);
    return 'ended';
  }

  /** Ends the QEMU that was started here; also one that another service left behind. */
  async rollback({ process, runDir, migrationId }: Params<'destination.rollback'>): Promise<null> {
    await this.#dispose();
    if (process !== null && (await isRunning(process))) await endProcess(process);
    await rm(join(runDir, migrationId), { recursive: true, force: true });
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose();
  }

  async #dispose(): Promise<void> {
    this.#stopSampling();
    await this.#relay?.[Symbol.asyncDispose]();
    await this.#guest?.[Symbol.asyncDispose]();
    for (const disk of this.#disks.splice(0)) await disk[Symbol.asyncDispose]();
    if (this.#directory !== null) await rm(this.#directory, { recursive: true, force: true });
  }

  #stopSampling(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
