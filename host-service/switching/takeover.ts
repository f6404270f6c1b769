/**
 * What a service finds that is to take the place of one that died at the destination while the guest still needed
 * memory: the ledger, and a QEMU that is paused. Nothing that asks QEMU's main loop is done before QEMU has a stream
 * again: it may be waiting for memory itself.
 */

import {
  type DestinationGuest,
  endProcess,
  isRunning,
  type ProcessId,
  RecoveryGuard,
  type RecoveryPaths,
} from '../../hypervisor/index.js';
import { openTransport, QmpClient } from '../../qmp/index.js';
import type { Endpoint } from '../../relay/link/connection.js';
import type { SwitchSourceState } from '../../relay/source/switchSource.js';
import { type Ledger, readDecision, readLedger } from '../commit/index.js';
import { connectControl } from '../control.js';
import { bootId } from '../newLedger.js';
import { ServiceError } from '../serviceError.js';

/** QEMU may have to get some memory before it answers. */
const monitorTimeoutMs = 60_000;
const busyTimeoutMs = 3_000;

/** Everything that the service needs is there. */
export interface Remains {
  readonly ledger: Ledger;
  readonly process: ProcessId;
  readonly link: NonNullable<Ledger['link']>;
  readonly needs: NonNullable<Ledger['takeOver']>;
}

/** What a service at work says of its relay. */
export interface AtWork {
  readonly port: number;
  /** It has taken over itself, and the source has not been told. */
  readonly awaitsSource: boolean;
}

/** The service that is at work at the destination; null when there is none any more. */
export async function findAtWork(runDir: string, migrationId: string): Promise<AtWork | null> {
  const control = await connectControl(runDir, migrationId, 'destination');
  if (control === null) return null;
  await using _control = control;
  return await control.request<AtWork>('status', {}, { timeoutMs: busyTimeoutMs });
}

/** Has the service that is at work at the destination wait for another source. @returns the port on which it does */
export async function awaitAnotherSource(runDir: string, migrationId: string): Promise<number> {
  const control = await connectControl(runDir, migrationId, 'destination');
  if (control === null) throw impossible('the service at the destination has ended');
  await using _control = control;
  return (await control.request<{ port: number }>('awaitSource', {})).port;
}

/** The service that is at work at the source: `waiting` when the destination is to be told of it; null when there is none. */
export async function findSourceAtWork(runDir: string, migrationId: string): Promise<'atWork' | 'waiting' | null> {
  const control = await connectControl(runDir, migrationId, 'source');
  if (control === null) return null;
  await using _control = control;
  const { connections } = await control.request<SwitchSourceState>('status', {}, { timeoutMs: busyTimeoutMs });
  return connections === 0 ? 'waiting' : 'atWork';
}

/** @throws ServiceError VMMIG_TAKEOVER when there is nothing that could be taken over, VMMIG_MEMORY_LOST of libvirt's guests */
export async function findRemains(runDir: string, migrationId: string): Promise<Remains> {
  const ledger = await readLedger(runDir, migrationId, 'destination');
  if (ledger === null) throw impossible('this host knows nothing of the migration');
  const { takeOver: needs, link } = ledger;
  const { process, name, libvirt } = ledger.guest;
  if (libvirt !== undefined)
    throw new ServiceError(
      'VMMIG_MEMORY_LOST',
      `vmmig here has died, and libvirt lets nobody give ${name} another stream`,
    );
  if (needs === undefined || link === null || process === null)
    throw impossible(`the service that took ${name} in died before there was anything to take over`);
  if (ledger.bootId !== (await bootId()) || !(await isRunning(process)))
    throw impossible(`the QEMU that ran ${name} has ended`);
  if ((await readDecision(runDir, migrationId, 'destination')) !== 'run')
    throw impossible(`it was not decided that ${name} runs here`);
  return { ledger, process, link, needs };
}

/** A QEMU that another service has started, and let run. */
export class AdoptedGuest implements DestinationGuest {
  readonly pid: number;
  readonly startTime: number;

  private constructor(
    private readonly process: ProcessId,
    private readonly monitor: Awaited<ReturnType<typeof openTransport>>,
    readonly qmp: QmpClient,
  ) {
    this.pid = process.pid;
    this.startTime = process.startTime;
  }

  static async adopt(process: ProcessId, qmpPath: string): Promise<AdoptedGuest> {
    const signal = AbortSignal.timeout(monitorTimeoutMs);
    const monitor = await openTransport({ path: qmpPath }, true, signal);
    const qmp = await QmpClient.connect({ stream: monitor }, { timeoutMs: monitorTimeoutMs, signal });
    return new AdoptedGuest(process, monitor, qmp);
  }

  guardRecovery(paths: RecoveryPaths): RecoveryGuard {
    return new RecoveryGuard(this.process, this.monitor, paths);
  }

  release(): void {}

  async kill(): Promise<void> {
    await this.qmp.close();
    await endProcess(this.process);
  }

  async logTail(): Promise<string> {
    return '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp.close();
  }
}

/** Tells the service that is at work at the source. @throws ServiceError VMMIG_TAKEOVER when there is none */
export async function reconnectSource(runDir: string, migrationId: string, endpoint: Endpoint | null): Promise<void> {
  const control = await connectControl(runDir, migrationId, 'source');
  if (control === null) throw impossible('the service that keeps the rest of the guest’s memory has ended');
  await using _control = control;
  await control.request('reconnect', { endpoint });
}

function impossible(message: string): ServiceError {
  return new ServiceError('VMMIG_TAKEOVER', message);
}
