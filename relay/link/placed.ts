/**
 * What a destination relay says that has taken the place of another one: the pages that QEMU has already. A set of runs
 * as `remoteSet.ts` codes it, in pieces; a piece's place among them is the sequence of its frame.
 *
 *   placed = be16 number of pieces, piece
 */
import { RelayError } from '../errors.js';
import { decodeRemoteSet, encodeRemoteSet, maxRemoteSetBytes } from '../store/remoteSet.js';

const pieceBytes = 1024 * 1024;
/** Far above what the largest of guests takes when its pages come in the order of their addresses. */
const maxPieces = 256;

/** @returns the payloads of the frames, in their order */
export function encodePlaced(runsOfBlock: readonly Uint32Array[]): Buffer[] {
  const set = encodeRemoteSet(runsOfBlock);
  const count = Math.ceil(set.length / pieceBytes);
  const header = Buffer.allocUnsafe(2);
  header.writeUInt16BE(count);
  return Array.from({ length: count }, (_, at) =>
    Buffer.concat([header, set.subarray(at * pieceBytes, (at + 1) * pieceBytes)]),
  );
}

/** Puts the pieces together, in whatever order they come. */
export class PlacedPages {
  readonly #pagesOfBlock: readonly number[];
  readonly #pieces = new Map<number, Buffer>();
  #count = 0;
  #bytes = 0;
  #isPlaced: readonly Uint8Array[] = [];

  constructor(pagesOfBlock: readonly number[]) {
    this.#pagesOfBlock = pagesOfBlock;
  }

  /**
   * @returns whether that was all
   * @throws RelayError VMMIG_LINK_PROTOCOL
   */
  add(sequence: number, payload: Buffer): boolean {
    const count = payload.length < 2 ? 0 : payload.readUInt16BE(0);
    const isOneOfThem = this.#pieces.size === 0 || (count === this.#count && !this.#pieces.has(sequence));
    if (sequence >= count || count > maxPieces || !isOneOfThem) throw malformed();
    this.#count = count;
    this.#bytes += payload.length - 2;
    if (this.#bytes > maxRemoteSetBytes(this.#pagesOfBlock)) throw malformed();
    this.#pieces.set(sequence, payload.subarray(2));
    if (this.#pieces.size < count) return false;
    const set = Buffer.concat(Array.from({ length: count }, (_, at) => this.#pieces.get(at)!));
    this.#pieces.clear();
    this.#isPlaced = decodeRemoteSet(set, this.#pagesOfBlock).map((runs, block) => {
      const marks = new Uint8Array(this.#pagesOfBlock[block]!);
      for (let at = 0; at < runs.length; at += 2) marks.fill(1, runs[at], runs[at]! + runs[at + 1]!);
      return marks;
    });
    return true;
  }

  /** Once all pieces are there. */
  has(block: number, page: number): boolean {
    return this.#isPlaced[block]![page] === 1;
  }
}

function malformed(): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', 'the destination sent a malformed list of the pages it has');
}
