/** The QEMU that waits for the guest on its destination: started here, or taken over from a service that has died. */
import { join } from 'node:path';
import {
  acceptMigration,
  type DestinationGuest,
  type PreviousSettings,
  type ProcessId,
  parseRamBlocks,
  type RecoveryGuard,
  startDestination,
} from '../hypervisor/index.js';
import type { MigrationCapability, QmpClient } from '../qmp/index.js';
import type { Params } from './protocol.js';
import { pidFile } from './switching/leftGuest.js';
import { AdoptedGuest, type Remains } from './switching/takeover.js';
import { Yielding } from './switching/yielding.js';

const smallPageBytes = 4096;
const restoreTimeoutMs = 10_000;

/** Where QEMU listens for another stream when the one that it had has broken. */
export function recoverySocketIn(directory: string): string {
  return join(directory, 'recover');
}

export class DestinationQemu implements AsyncDisposable {
  #guest: DestinationGuest | null = null;
  #previous: PreviousSettings | null = null;
  /** Kept on watch where this service ends before the guest has all of its memory. */
  #recoveryGuard: RecoveryGuard | null = null;
  readonly #yielding = new Yielding();

  /** Null before there is one. */
  get guest(): DestinationGuest | null {
    return this.#guest;
  }

  /** Of a stream; to be set again when another service takes over. */
  get capabilities(): Record<string, boolean> {
    return { ...this.#previous!.settings.capabilities };
  }

  async start(
    { argv, cwd, stateDir, vm, qmpPath, postcopy }: Params<'destination.start'>,
    directory: string,
    signal: AbortSignal,
  ): Promise<DestinationGuest> {
    const logPath = join(stateDir, `${vm}.log`);
    const pidPath = join(directory, pidFile);
    this.#guest = await startDestination({ argv, cwd, logPath, pidPath, qmpPath, signal });
    if (postcopy) this.#yielding.add(this.#guest.pid);
    return this.#guest;
  }

  /**
   * Has it wait for its stream.
   * @returns the host page size of its RAM blocks, where it is not the usual one and matters
   */
  async accept(isPostcopy: boolean, directory: string, signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const guest = this.#guest!;
    const settings = isPostcopy ? { capabilities: { 'postcopy-ram': true, 'return-path': true } } : {};
    this.#previous = await acceptMigration(guest, `unix:${join(directory, 'incoming')}`, { settings, signal });
    if (!isPostcopy) return new Map();
    const pageSizes = await largePages(guest.qmp);
    this.#guardRecovery(guest, directory);
    return pageSizes;
  }

  /** One that has a stream again, and so can be spoken to. */
  async adopt(process: ProcessId, qmpPath: string, directory: string, needs: Remains['needs']): Promise<void> {
    const guest = await AdoptedGuest.adopt(process, qmpPath);
    this.#guest = guest;
    this.#guardRecovery(guest, directory);
    const restore = () => setCapabilities(guest.qmp, needs);
    this.#previous = { settings: { capabilities: needs.capabilities }, restore };
  }

  /** One that has all of the guest's memory already. */
  async adoptWhole(process: ProcessId, qmpPath: string, needs: Remains['needs']): Promise<void> {
    this.#guest = await AdoptedGuest.adopt(process, qmpPath);
    await setCapabilities(this.#guest.qmp, needs);
  }

  /** Its guest is about to run. */
  permitted(): void {
    this.#yielding.end();
  }

  /** The guest needs nothing from elsewhere any more: QEMU's settings are as they were. */
  async restore(): Promise<void> {
    this.#recoveryGuard?.[Symbol.dispose]();
    await this.#previous?.restore({ signal: AbortSignal.timeout(restoreTimeoutMs) });
  }

  /** The guest may run and need another service: it is to be able to take over. */
  async leave(): Promise<void> {
    await this.#guest?.qmp.close();
    this.#recoveryGuard?.alarm();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Not one that was let run.
    await this.#guest?.[Symbol.asyncDispose]();
  }

  #guardRecovery(guest: DestinationGuest, directory: string): void {
    this.#recoveryGuard = guest.guardRecovery({
      decisionPath: join(directory, 'decision-destination'),
      socketPath: recoverySocketIn(directory),
    });
  }
}

async function setCapabilities(qmp: QmpClient, { capabilities }: Remains['needs']): Promise<void> {
  const list = Object.entries(capabilities).map(([name, state]) => ({
    capability: name as MigrationCapability,
    state,
  }));
  await qmp.execute('migrate-set-capabilities', { capabilities: list });
}

/** Of those RAM blocks that lie in huge pages. */
async function largePages(qmp: QmpClient): Promise<ReadonlyMap<string, number>> {
  const text = await qmp.execute('human-monitor-command', { 'command-line': 'info ramblock' });
  const large = parseRamBlocks(text).filter(({ pageSizeBytes }) => pageSizeBytes !== smallPageBytes);
  return new Map(large.map(({ name, pageSizeBytes }) => [name, pageSizeBytes]));
}
