/**
 * What the source relay of a switch tells besides pages. Each is a frame of its own type, of `device` and `remote` there
 * are as many as it takes:
 *
 *   blocks = JSON of `CaptureFrame`
 *   remote = a piece of what `remoteSet.ts` codes; the pieces follow each other
 *   device = be32 length of a piece of the device state, then the piece as `packPages` gives it
 */
import { headForPostcopy } from '../../../pager/index.js';
import { splitTail } from '../../../stream/deviceState.js';
import type { RamBlock } from '../../../stream/handler.js';
import { pageBytes } from '../../digest.js';
import { packPages } from '../../link/batch.js';
import { encodeRemoteSet } from '../../store/remoteSet.js';
import type { GuestPages } from '../guestPages.js';
import type { CaptureStart } from '../streamToStore.js';

/** What the destination tells the blocks by. */
export interface CaptureFrame {
  readonly section: { readonly id: number; readonly version: number };
  /** Base64. */
  readonly head: string;
  readonly blocks: readonly {
    readonly name: string;
    readonly lengthBytes: number;
    readonly pageSizeBytes: number | null;
  }[];
}

const pieceBytes = 1024 * 1024;
/** Magic and version. */
const headerBytes = 8;

/** @param isInFiles - the stream leaves out memory, which the destination's QEMU gets all the same */
export function encodeCapture({ head, section, blocks }: CaptureStart, isInFiles: boolean): Buffer {
  const frame: CaptureFrame = {
    section: { id: section.id, version: section.version },
    head: (isInFiles ? withoutFiles(head, blocks) : head).toString('base64'),
    blocks: blocks.map(({ name, lengthBytes, pageSizeBytes }) => ({ name, lengthBytes, pageSizeBytes })),
  };
  return Buffer.from(JSON.stringify(frame));
}

function withoutFiles(head: Buffer, blocks: readonly RamBlock[]): Buffer {
  return headForPostcopy({ configuration: head.subarray(headerBytes), blocks }, () => pageBytes).head;
}

/** @returns the payloads of the frames that tell which pages of bytes are still to come, in their order */
export function encodeRemote(store: GuestPages, blockCount: number): Iterable<Buffer> {
  return pieces(encodeRemoteSet(Array.from({ length: blockCount }, (_, block) => store.remoteSet(block))));
}

/**
 * @param tail - of QEMU's stream: what follows the guest's memory
 * @returns the payloads of the frames that bring the device state, in their order
 */
export function* encodeDevices(tail: Buffer): Iterable<Buffer> {
  for (const piece of pieces(splitTail(tail).deviceState)) {
    const lengthBytes = Buffer.alloc(4);
    lengthBytes.writeUInt32BE(piece.length);
    yield Buffer.concat([lengthBytes, packPages(piece)]);
  }
}

function* pieces(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}
