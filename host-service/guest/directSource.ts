/** A guest whose QEMU vmmig speaks to by itself. */
import { join } from 'node:path';
import { QgaSocket } from '../../guest-agent/qga/socket.js';
import {
  applyMigrationSettings,
  cancelMigration,
  type GuestInspection,
  type GuestServices,
  inspectGuest,
  inspectGuestServices,
  type MigrationState,
  migrationState,
  type PreviousSettings,
  quitSource,
  resumeAfterFailure,
  startMigration,
  waitForMigrationEnd,
} from '../../hypervisor/index.js';
import { QmpClient } from '../../qmp/index.js';
import type { GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';
import type { Departure, SourceGuest } from './sourceGuest.js';

/** Above what any QEMU reaches: the link is what limits, by backpressure. */
const unlimitedBytesPerSecond = 2 ** 40;

/** The capability has to be there from the start. Before `throttle` QEMU takes a guest's processors 1 % of their time at most. */
const hardlyThrottled = {
  'throttle-trigger-threshold': 100,
  'cpu-throttle-initial': 1,
  'cpu-throttle-increment': 1,
  'max-cpu-throttle': 1,
} as const;
/** A guest that writes half of what the link takes converges. QEMU goes up a step each pass, as it finds necessary. */
const throttled = {
  'throttle-trigger-threshold': 50,
  'cpu-throttle-initial': 50,
  'cpu-throttle-increment': 30,
  'max-cpu-throttle': 99,
} as const;

export class DirectSource implements SourceGuest {
  readonly monitor: QmpClient;
  readonly #address: GuestAddress;
  readonly patientMonitor: QmpClient;
  #inspection: GuestInspection | null = null;
  #previous: PreviousSettings | null = null;
  #streamPath = '';
  hasSetOut = false;

  private constructor(monitor: QmpClient, address: GuestAddress) {
    this.monitor = this.patientMonitor = monitor;
    this.#address = address;
  }

  static async open(address: GuestAddress, signal: AbortSignal): Promise<DirectSource> {
    return new DirectSource(await QmpClient.connect({ path: address.qmpPath }, { signal, timeoutMs: 5_000 }), address);
  }

  async streamPath(_migrationId: string, directory: string): Promise<string> {
    return join(directory, 'source');
  }

  async inspect(signal: AbortSignal): Promise<GuestInspection> {
    this.#inspection = await inspectGuest({ ...this.#address, qmp: this.monitor, signal });
    return this.#inspection;
  }

  async inspectForLibvirt(): Promise<null> {
    return null;
  }

  async inspectServices(signal: AbortSignal): Promise<GuestServices> {
    return await inspectGuestServices(this.monitor, signal);
  }

  openQga(path: string): QgaSocket {
    return new QgaSocket(path);
  }

  async prepare(
    { streamPath, isInFiles, downtimeLimitMs, mayThrottle }: Departure,
    signal: AbortSignal,
  ): Promise<void> {
    this.#streamPath = streamPath;
    this.#previous = await applyMigrationSettings(
      this.monitor,
      {
        capabilities: {
          events: true,
          xbzrle: false,
          'auto-converge': mayThrottle,
          'postcopy-ram': false,
          multifd: false,
          'return-path': false,
          'release-ram': false,
          'x-ignore-shared': isInFiles,
          'pause-before-switchover': false,
        },
        parameters: {
          'max-bandwidth': unlimitedBytesPerSecond,
          'downtime-limit': downtimeLimitMs,
          ...(mayThrottle ? hardlyThrottled : {}),
        },
      },
      { signal },
    );
    this.hasSetOut = true;
  }

  async setOut(signal: AbortSignal): Promise<void> {
    await startMigration(this.monitor, `unix:${this.#streamPath}`, { signal });
  }

  async allowDowntime(limitMs: number, signal: AbortSignal): Promise<void> {
    const parameters = { 'downtime-limit': limitMs, 'max-bandwidth': unlimitedBytesPerSecond };
    await this.monitor.execute('migrate-set-parameters', parameters, { signal });
  }

  async throttle(signal: AbortSignal): Promise<void> {
    await this.monitor.execute('migrate-set-parameters', throttled, { signal });
  }

  async sent(signal: AbortSignal): Promise<MigrationState> {
    const state = await waitForMigrationEnd(this.monitor, { signal });
    if (state.status === 'completed') return state;
    const message = `QEMU calls its migration ${state.status}: ${state.error ?? ''}`;
    throw new ServiceError('VMMIG_SOURCE_MIGRATION', message);
  }

  async letGo(): Promise<void> {}

  lost(): Promise<never> {
    return new Promise(() => {});
  }

  async explained(failure: Error): Promise<Error> {
    return failure;
  }

  hold(): void {}

  async undo(wasRunning: boolean, signal: AbortSignal): Promise<void> {
    const { final } = await migrationState(this.monitor, { signal });
    if (!final) await cancelMigration(this.monitor, { wasRunning, signal });
    await resumeAfterFailure(this.monitor, { wasRunning, signal });
    await this.#previous?.restore({ signal });
    this.#previous = null;
    this.hasSetOut = false;
  }

  async release(signal: AbortSignal): Promise<void> {
    const { process } = this.#inspection ?? (await this.inspect(signal));
    await quitSource(this.monitor, process, { signal });
    this.hasSetOut = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.monitor.close();
  }
}
