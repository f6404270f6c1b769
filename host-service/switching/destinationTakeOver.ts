/** Takes the place of a service that died at the destination of a switch, after the guest had begun to run there. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiskReader } from '../../disk/index.js';
import { untilRecoverable } from '../../hypervisor/index.js';
import { removeLedger } from '../commit/index.js';
import { type DestinationQemu, recoverySocketIn } from '../destinationQemu.js';
import type { Params, TakeOver } from '../protocol.js';
import { DestinationSwitch, type DestinationSwitchOptions } from './destinationSwitch.js';
import { awaitAnotherSource, findAtWork, findRemains } from './takeover.js';

/** QEMU may not have noticed yet. */
const recoverableTimeoutMs = 30_000;

/** The service that takes over. */
export interface Successor {
  readonly qemu: DestinationQemu;
  openDisks(disks: Params<'destination.start'>['disks'], directory: string): Promise<readonly DiskReader[]>;
  readonly options: Pick<DestinationSwitchOptions, 'guest' | 'concluded' | 'cutOff'>;
  /** A relay waits for the source. */
  taken(own: DestinationSwitch): void;
}

/** @throws ServiceError VMMIG_TAKEOVER when there is nothing that could be taken over, VMMIG_MEMORY_LOST of libvirt's guests */
export async function takeOverDestination(
  { runDir, migrationId, isSourceNew }: Params<'destination.takeOver'>,
  { qemu, openDisks, options, taken }: Successor,
  signal: AbortSignal,
): Promise<TakeOver> {
  const atWork = await findAtWork(runDir, migrationId);
  if (atWork !== null && (atWork.awaitsSource || isSourceNew)) {
    const port = atWork.awaitsSource ? atWork.port : await awaitAnotherSource(runDir, migrationId);
    return { state: 'waiting', port, wasAtWork: true };
  }
  if (atWork !== null) return { state: 'atWork' };
  const { ledger, process, link, needs } = await findRemains(runDir, migrationId);
  const directory = join(runDir, migrationId);
  const socketPath = recoverySocketIn(directory);
  const { qmpPath } = ledger.guest;
  const timeoutMs = recoverableTimeoutMs;
  if ((await untilRecoverable({ process, qmpPath, socketPath, timeoutMs, signal })) === 'complete') {
    await qemu.adoptWhole(process, qmpPath, needs);
    await removeLedger(runDir, migrationId, 'destination');
    await rm(directory, { recursive: true, force: true });
    return { state: 'complete' };
  }
  const disks = await openDisks(needs.disks, directory);
  const { ports, reconnectTimeoutMs } = needs;
  let adopting = Promise.resolve();
  const adopt = async () => {
    await rm(socketPath, { force: true });
    await qemu.adopt(process, qmpPath, directory, needs);
  };
  const own = await DestinationSwitch.takeOver(
    {
      ...{ runDir, migrationId },
      peer: ledger.peer,
      guestAddress: ledger.guest,
      ...options,
      concluded: async () => {
        await adopting;
        await options.concluded();
      },
      relay: {
        credentials: { migrationId, key: Buffer.from(link.key, 'base64') },
        listen: ports === null ? {} : { ports },
        qemuSocketPath: socketPath,
        qemuListens: Promise.resolve(new Map(Object.entries(needs.pageSizes))),
        disks,
        heldLimitBytes: 0,
        reconnectTimeoutMs,
        takesOver: true,
      },
    },
    async () => {
      adopting = adopt();
      await adopting;
    },
  );
  taken(own);
  return { state: 'waiting', port: own.relay.port, wasAtWork: false };
}
