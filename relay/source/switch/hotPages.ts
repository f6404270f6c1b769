/**
 * What the guest will look at first when it goes on. While QEMU loads it nothing can be asked for, and afterwards each
 * such page would cost a round trip: so some of it goes with the device state, and some before the rest.
 */
import type { FilePages } from '../filePages.js';
import { type MemoryStretch, type PageRange, pagesOf } from '../memoryStretch.js';
import type { BatchSender } from './batchSender.js';
import { pagesAtATime } from './pump.js';

export interface ExpectedUse {
  /** While it stands still, or as soon as it does not: goes with the device state. */
  readonly now: readonly MemoryStretch[];
  /** Goes before the rest, and while the guest is loaded. */
  readonly soon: readonly MemoryStretch[];
  /** Goes before the rest. */
  readonly later: readonly MemoryStretch[];
}

/** Sent with the device state. At 200 Mbit/s, and compressed, some 15 ms of the guest's pause. */
const maxHotPages = 256;

type SwitchedFiles = Pick<FilePages, 'written' | 'follow'>;

export class HotPages {
  readonly #files: SwitchedFiles | null;
  readonly #share: number;
  #expected: ExpectedUse = { now: [], soon: [], later: [] };
  /** Of what is needed soon; null before it is known. */
  #favoured: readonly PageRange[] | null = null;

  /**
   * @param files - null: all of the guest's memory comes through QEMU's stream
   * @param share - of what is expected, and of what was written last, that is treated in a special way
   */
  constructor(files: SwitchedFiles | null, share: number) {
    this.#files = files;
    this.#share = share;
  }

  /** In place of what was expected before. */
  expect({ now, soon, later }: ExpectedUse): void {
    const left = { bytes: this.#share * (bytesOf(now) + bytesOf(soon) + bytesOf(later)) };
    this.#expected = { now: first(now, left), soon: first(soon, left), later: first(later, left) };
    this.#favoured = null;
  }

  /** What is needed soon goes before the rest. */
  favour({ store, blocks }: BatchSender): void {
    const { soon, later } = this.#expected;
    this.#favoured = pagesOf([...soon, ...later], blocks);
    store.favour(this.#favoured);
  }

  /** Pages of it that are not on their way yet. @param isAll - no more of the guest's memory comes for the time being */
  unsent({ store }: BatchSender, isAll: boolean): number | null {
    if (this.#favoured === null) return null;
    const { bytes, unknown } = store.waitingIn(this.#favoured);
    return isAll ? bytes : bytes + unknown;
  }

  /**
   * The guest has stopped. What it wrote last it will touch first, its devices' rings above all; then what is needed soon,
   * in its order.
   *
   * @param written - what QEMU has sent again, the last one last
   */
  send(batches: BatchSender, written: readonly PageRange[]): void {
    const { store } = batches;
    const most = Math.round(maxHotPages * this.#share);
    if (this.#files === null)
      for (const { block, page, count } of this.#favoured?.toReversed() ?? []) store.moveToFront(block, page, count);
    if (this.#share > 0) for (const { block, page, count } of written) store.moveToFront(block, page, count);
    store.prefer('recent');
    for (let left = Math.min(most, written.length); left > 0; left -= pagesAtATime.after)
      if (!batches.send(Math.min(left, pagesAtATime.after))) break;
    const now = pagesOf(this.#expected.now, batches.blocks);
    if (this.#files === null) for (const { block, page, count } of now) batches.sendNow(block, page, count);
    else this.#sendFiles(this.#files, now, most, batches);
  }

  #sendFiles(files: SwitchedFiles, now: readonly PageRange[], most: number, batches: BatchSender): void {
    const written = files.written.slice(0, most).map((page) => ({ ...page, count: 1 }));
    batches.store.favour([...now, ...written]);
    files.follow('wanted');
    while (batches.send(pagesAtATime.before));
    files.follow('nothing');
    this.favour(batches);
  }
}

function bytesOf(stretches: readonly MemoryStretch[]): number {
  return stretches.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}

/** So much of it from its beginning. @param left - what is taken is taken from it */
function first(stretches: readonly MemoryStretch[], left: { bytes: number }): MemoryStretch[] {
  return stretches.flatMap((stretch) => {
    const lengthBytes = Math.min(stretch.lengthBytes, left.bytes);
    left.bytes -= lengthBytes;
    return lengthBytes > 0 ? [{ ...stretch, lengthBytes }] : [];
  });
}
