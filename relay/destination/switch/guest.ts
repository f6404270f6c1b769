/** What puts the guest together at the destination, once QEMU listens and the source has told of the guest's memory. */
import type { DiskReader } from '../../../disk/diskReader.js';
import type { DiskError } from '../../../disk/errors.js';
import type { HeldPages } from '../../../pager/index.js';
import type { RamBlock } from '../../../stream/handler.js';
import type { RelayCounters } from '../../counters.js';
import { pageBytes, pagesOfBlocks, type RunDigester } from '../../digest.js';
import type { DurableLink } from '../../link/durableLink.js';
import { frameType } from '../../link/frames.js';
import { encodeHostPages } from '../../link/hostPages.js';
import { encodeResendRequest } from '../../link/resend.js';
import { Acknowledgements } from '../acknowledgements.js';
import { HostPageReceipts } from '../hostPageReceipts.js';
import type { PostcopyStream } from '../postcopy/postcopyStream.js';
import { DiskPages } from './diskPages.js';
import type { SwitchPhases } from './phases.js';
import { Placement } from './placement.js';

export interface Guest {
  readonly pagesOfBlock: readonly number[];
  readonly stream: PostcopyStream;
  readonly disks: DiskPages;
  readonly receipts: HostPageReceipts;
  readonly placement: Placement;
}

export interface GuestTools {
  /** On which all of this is told, and answered: what comes of it later is of no use on another one. */
  readonly link: Pick<DurableLink, 'send' | 'sendUrgent'>;
  readonly phases: Readonly<SwitchPhases>;
  readonly digester: RunDigester;
  readonly counters: RelayCounters;
  readonly disks: readonly DiskReader[];
  readonly held: HeldPages;
  /** Before the switch: the storage does not answer, and the guest could not run here. */
  readonly storageSilent: (error: DiskError) => void;
  /** QEMU goes on, and drops nothing any more. */
  readonly takesOver: boolean;
}

/** @param pageSizes - of the destination's memory, where they are not the smallest; the source's do not matter */
export function blocksThere(
  blocks: readonly { readonly name: string; readonly lengthBytes: number }[],
  pageSizes: ReadonlyMap<string, number>,
): RamBlock[] {
  return blocks.map(({ name, lengthBytes }, index) => {
    return { name, lengthBytes, index, pageSizeBytes: pageSizes.get(name) ?? null, gpa: null };
  });
}

/** @param blocks - the guest's, with the page sizes of the destination's memory */
export function assembleGuest(stream: PostcopyStream, blocks: readonly RamBlock[], tools: GuestTools): Guest {
  const { link, phases, digester, counters } = tools;
  const pagesOfBlock = pagesOfBlocks(blocks);
  const receipts = newReceipts(stream, blocks, tools);
  const disks = new DiskPages(
    stream,
    phases,
    { disks: tools.disks, held: tools.held, digester, counters, pagesOfBlock },
    {
      askAgain: (sequence, record) => link.send(frameType.resendRequest, sequence, encodeResendRequest(record)),
      storageSilent: (error) => {
        // A guest that runs here is better off with all of its memory.
        if (phases.hasSwitched) return false;
        tools.storageSilent(error);
        return true;
      },
      batchDone: (sequence) => receipts.done(sequence),
    },
  );
  const placement = new Placement(stream, disks, receipts, { phases, digester, counters, blocks });
  return { pagesOfBlock, stream, disks, receipts, placement };
}

/** The source sends huge host pages as a whole when it knows of them. */
function newReceipts(stream: PostcopyStream, blocks: readonly RamBlock[], tools: GuestTools): HostPageReceipts {
  const { link, takesOver } = tools;
  const acknowledgements = new Acknowledgements((payload) => link.send(frameType.acknowledge, 0, payload));
  const givenBack = new Acknowledgements((payload) => link.send(frameType.givenBack, 0, payload));
  const sizes = blocks.map(({ pageSizeBytes }) => (pageSizeBytes ?? pageBytes) / pageBytes);
  if (sizes.some((size) => size > 1)) link.sendUrgent(frameType.hostPages, encodeHostPages(sizes));
  const sink = {
    acknowledge: (sequence: number) => stream.whenTaken(() => acknowledgements.add(sequence)),
    giveBack: (sequence: number) => givenBack.add(sequence),
  };
  return new HostPageReceipts(sizes, (block, page) => stream.isHere(block, page), sink, takesOver);
}
