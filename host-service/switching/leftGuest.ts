/** A guest whose migration a service left that is gone: what it does, and what can be done about it. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  cancelMigration,
  type DomainAddress,
  domainState,
  endProcess,
  HypervisorError,
  isActive,
  isRunning,
  LibvirtError,
  migrationState,
  type ProcessId,
  quitSource,
  resumeAfterFailure,
  Virsh,
} from '../../hypervisor/index.js';
import { nobodyListens, QmpClient } from '../../qmp/index.js';
import type { Ledger } from '../commit/index.js';
import { untouched } from '../guest/arrivedGuest.js';
import { isWaiting, LibvirtDestination } from '../guest/libvirtDestination.js';
import { LibvirtSource } from '../guest/libvirtSource.js';
import { bootId } from '../newLedger.js';
import type { GuestAddress } from '../protocol.js';
import { ServiceError } from '../serviceError.js';

/** In a migration's directory while the QEMU that was started for it is not to outlive its service: `PID STARTTIME`. */
export const pidFile = 'qemu.pid';

const monitorTimeoutMs = 5_000;
const undoTimeoutMs = 15_000;

export interface LeftAtSource extends AsyncDisposable {
  /** `paused` also when it has been migrated away. */
  readonly state: 'running' | 'paused' | 'gone';
  /** @throws when the guest does not run afterwards */
  resume(): Promise<void>;
  /** @throws when it does not end */
  end(): Promise<void>;
}

export interface LeftAtDestination extends AsyncDisposable {
  /**
   * `waiting`: it has never run. `silent`: there is a QEMU, which does not answer.
   * @param isDecided - that it runs here: whoever else may be about to let it run is waited for
   */
  look(isDecided?: boolean): Promise<'waiting' | 'running' | 'silent' | 'gone'>;
  start(): Promise<void>;
  end(): Promise<void>;
}

export async function leftAtSource(address: GuestAddress, ledger: Ledger | null): Promise<LeftAtSource> {
  return {
    state: await lookAtSource(address, ledger),
    resume: () => resumeOrphan(address),
    end: () => endOrphan(address, ledger),
    async [Symbol.asyncDispose]() {},
  };
}

/**
 * What the source's QEMU is about.
 * @param ledger - null when nothing is noted any more, which is so once QEMU was let run on, or has ended
 * @throws ServiceError VMMIG_QEMU_SILENT when it is there and does not answer
 */
export async function lookAtSource(
  guest: Pick<GuestAddress, 'name' | 'qmpPath'>,
  ledger: Ledger | null,
): Promise<LeftAtSource['state']> {
  let isListening = true;
  await using qmp = await monitorOf(guest, (thrown) => {
    isListening = !nobodyListens(thrown);
  });
  if (qmp !== null) return (await qmp.execute('query-status')).running ? 'running' : 'paused';
  if (ledger === null ? !isListening : await hasEnded(ledger)) return 'gone';
  throw new ServiceError('VMMIG_QEMU_SILENT', `the QEMU of ${guest.name} does not answer on its monitor`);
}

/** Lets the guest of a QEMU run on that has been told to migrate. @throws when it does not */
export async function resumeOrphan(guest: Pick<GuestAddress, 'name' | 'qmpPath'>): Promise<void> {
  await using qmp = await monitorOf(guest);
  if (qmp === null) throw new ServiceError('VMMIG_QEMU_SILENT', `the QEMU of ${guest.name} does not answer`);
  const signal = AbortSignal.timeout(undoTimeoutMs);
  const { final } = await migrationState(qmp, { signal });
  if (!final) await cancelMigration(qmp, { wasRunning: true, signal });
  await resumeAfterFailure(qmp, { wasRunning: true, signal });
}

/** Ends a QEMU whose guest runs elsewhere. @throws when it does not end */
export async function endOrphan(guest: Pick<GuestAddress, 'qmpPath'>, ledger: Ledger | null): Promise<void> {
  await using qmp = await monitorOf(guest);
  if (ledger?.guest.process != null) await quitSource(qmp, ledger.guest.process);
}

/** @throws LibvirtError when the daemon does not answer */
export async function leftByLibvirtAtSource(address: DomainAddress): Promise<LeftAtSource> {
  const source = new LibvirtSource(address);
  const signal = AbortSignal.timeout(undoTimeoutMs);
  await using virsh = new Virsh(address.uri);
  const found = await domainState(virsh, address.domain, { signal });
  return {
    state: !isActive(found) ? 'gone' : found?.state === 'running' ? 'running' : 'paused',
    resume: () => source.undo(true, AbortSignal.timeout(undoTimeoutMs)),
    end: () => source.release(AbortSignal.timeout(undoTimeoutMs)),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

export async function leftAtDestination(
  {
    guest,
    runDir,
    migrationId,
  }: { readonly guest: GuestAddress; readonly runDir: string; readonly migrationId: string },
  ledger: Ledger | null,
): Promise<LeftAtDestination> {
  const qmp = await monitorOf(guest);
  const process = ledger?.guest.process ?? (await notedProcess(join(runDir, migrationId, pidFile)));
  return {
    async look() {
      if (qmp === null) return process !== null && (await isRunning(process)) ? 'silent' : 'gone';
      try {
        const { status } = await qmp.execute('query-status', {}, { timeoutMs: monitorTimeoutMs });
        return untouched.has(status) ? 'waiting' : 'running';
      } catch {
        return 'silent';
      }
    },
    async start() {
      await qmp!.execute('cont');
    },
    async end() {
      if (process !== null && (await isRunning(process))) await endProcess(process);
    },
    async [Symbol.asyncDispose]() {
      await qmp?.close();
    },
  };
}

/** Of libvirt's making: it starts the guest, or gives it up. */
export async function leftByLibvirtAtDestination(
  address: DomainAddress,
  migrationId: string,
): Promise<LeftAtDestination> {
  const domain = new LibvirtDestination(address, migrationId);
  const virsh = new Virsh(address.uri);
  const cannot = () => new HypervisorError('VMMIG_PROCESS_END', `libvirt has not given ${address.domain} up here`);
  return {
    async look(isDecided) {
      try {
        if (isDecided) return (await domain.settle(true)) === 'running' ? 'running' : 'gone';
        const found = await domainState(virsh, address.domain);
        return !isActive(found) ? 'gone' : isWaiting(found!) ? 'waiting' : 'running';
      } catch (thrown) {
        if (thrown instanceof LibvirtError) return 'silent';
        throw thrown;
      }
    },
    start: () => Promise.reject(cannot()),
    async end() {
      if ((await domain.settle(false)) !== 'ended') throw cannot();
    },
    async [Symbol.asyncDispose]() {
      await domain[Symbol.asyncDispose]();
      await virsh[Symbol.asyncDispose]();
    },
  };
}

/** @param failed - gets why there is none */
async function monitorOf(
  { qmpPath }: Pick<GuestAddress, 'qmpPath'>,
  failed: (thrown: unknown) => void = () => {},
): Promise<QmpClient | null> {
  try {
    return await QmpClient.connect({ path: qmpPath }, { timeoutMs: monitorTimeoutMs });
  } catch (thrown) {
    failed(thrown);
    return null;
  }
}

/** The QEMU that the guest had when the migration began is gone. */
export async function hasEnded(ledger: Ledger | null): Promise<boolean> {
  const process = ledger?.guest.process ?? null;
  return process !== null && (ledger!.bootId !== (await bootId()) || !(await isRunning(process)));
}

/** What was noted of a QEMU when it was started. */
export async function notedProcess(path: string): Promise<ProcessId | null> {
  const [pid, startTime] = (await readFile(path, 'utf8').catch(() => '')).split(' ').map(Number);
  return pid && startTime ? { pid, startTime } : null;
}
