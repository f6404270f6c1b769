/**
 * What is read of a guest's memory beside QEMU, and sent ahead of its stream: of a teleport while the link has nothing else to
 * carry, of a switch what the guest will look at first. The destination holds it. The guest goes on and writes to some of
 * it, so that nothing is promised: a page of the stream is told by what is held when it is the same still.
 */
import { CaptureBlock, groupPages, type HintedStretch, HintPass, heldDisk } from '../../pager/index.js';
import type { RamBlock } from '../../stream/handler.js';
import { areSameBlocks } from '../digest.js';
import type { BatchBuilder } from '../link/batch.js';
import { type GuestBlock, readableBlocks } from './guestBlock.js';
import { type MemoryStretch, pagesOf } from './memoryStretch.js';
import { type CacheMap, TeleportMap } from './teleportMap.js';

/** The sources are the caller's, and stay open until the relay is disposed. */
export interface ReadableMemory {
  /** All of the guest's, in the order of QEMU's stream. */
  readonly blocks: readonly GuestBlock[];
  /** The destination has to hold it. */
  readonly limitBytes: number;
}

export class SentAhead {
  readonly #memory: ReadableMemory;
  readonly #blocks: readonly CaptureBlock[];
  readonly #byIndex: ReadonlyMap<number, CaptureBlock>;
  readonly #pass: HintPass;
  #isSurveyed = false;
  #knowsCache = false;
  /** How far QEMU's first pass is. */
  readonly #at = { block: 0, page: -1 };
  /** Of the last page found: the run of pages that are held together. */
  run = 0;
  readonly disk = heldDisk;
  readonly diskOffsetBytes = 0;

  /** @param awaitsCache - until `know` nothing is sent but what is favoured */
  constructor(memory: ReadableMemory, { awaitsCache = false } = {}) {
    this.#memory = memory;
    this.#blocks = readableBlocks(memory.blocks).map((block) => new CaptureBlock(block));
    this.#byIndex = new Map(this.#blocks.map((block) => [block.index, block]));
    // The stream comes from the beginning: at first it is the processors that hold it up, and in the end the link.
    const options = { limitBytes: memory.limitBytes, awaitsCache, isBackwards: true };
    const isPast = ({ index }: CaptureBlock, group: number) =>
      index < this.#at.block || (index === this.#at.block && group * groupPages <= this.#at.page);
    this.#pass = new HintPass(this.#blocks, () => {}, { ...options, isPast });
  }

  /** Finds out what is not worth a look: what has never been written to. What is favoured is, and does not wait for that. */
  async survey(signal: AbortSignal): Promise<void> {
    for (const block of this.#blocks) await block.survey(signal);
    this.#isSurveyed = true;
    this.#open();
  }

  /** Neither is page cache, as far as that is known: there is no more to wait for. */
  know(map: CacheMap | null): void {
    const runs = map === null ? [] : [...new TeleportMap(this.#memory.blocks, map).runs()];
    for (const block of this.#blocks) block.setCache(runs.filter((run) => run.block === block.index));
    this.#knowsCache = true;
    this.#pass.knowCache();
    this.#open();
  }

  #open(): void {
    if (this.#isSurveyed && this.#knowsCache && !this.#hasPassed) this.#pass.open();
  }

  /** QEMU's stream has pages now, up to this one: of the others only what is favoured is worth it. */
  passed(block: number, page: number): void {
    if (!this.#hasPassed) this.#pass.close();
    if (block < this.#at.block || (block === this.#at.block && page <= this.#at.page)) return;
    this.#at.block = block;
    this.#at.page = page;
  }

  get #hasPassed(): boolean {
    return this.#at.page >= 0 || this.#at.block > 0;
  }

  /** These go first, in this order; in place of those before. */
  favour(stretches: readonly MemoryStretch[]): void {
    const ranges = pagesOf(stretches, this.#memory.blocks).flatMap(({ block: index, page, count }) => {
      const block = this.#byIndex.get(index);
      return block === undefined ? [] : [{ block, page, end: Math.min(block.pages, page + count) }];
    });
    this.#pass.favour(ranges);
  }

  /** There is nothing to send before more is known. */
  get isWaiting(): boolean {
    return this.#pass.isWaiting;
  }

  /** All has been sent that the destination will hold. */
  get isOver(): boolean {
    return this.#pass.isOver;
  }

  /** @returns how many pages were put in the batch; 0 may mean that there was none among the next ones */
  fill(builder: BatchBuilder, limitPages: number): number {
    return this.#pass.fill(builder, limitPages);
  }

  /** What QEMU's stream has. @returns whether that is what was sent */
  isOf(blocks: readonly RamBlock[]): boolean {
    return areSameBlocks(blocks, this.#memory.blocks);
  }

  /** Whether a page was sent; sets `run`. */
  find(block: number, page: number): boolean {
    const hints = this.#byIndex.get(block)?.hints;
    const group = Math.floor(page / groupPages);
    const within = page - group * groupPages - (hints?.startOf(group) ?? 0);
    if (hints === undefined || within < 0 || within >= hints.countOf(group)) return false;
    this.run = group;
    return true;
  }

  /**
   * Which of these pages, which were sent together, are the same still. None of them will be found again: what QEMU sends
   * once more the guest has written to.
   */
  take(block: number, page: number, count: number, bytes: Buffer): HintedStretch[] {
    const { hints } = this.#byIndex.get(block)!;
    const group = Math.floor(page / groupPages);
    const start = page - group * groupPages;
    const stretches = hints.compare(group, start, count, bytes);
    hints.clearBefore(group, start + count);
    return stretches;
  }
}
