/**
 * What is sent of a guest's memory before QEMU's stream has it, where it is in no file: what the guest will look at first. The
 * stream brings it by address, much of it in the last moment before the guest stops. See sentAhead.ts.
 */
import { type Frame, frameType } from '../../link/frames.js';
import { decodeSequences } from '../../link/sequences.js';
import { AheadSender } from '../aheadSender.js';
import { encodeMemory } from '../memoryFrame.js';
import { type ReadableMemory, SentAhead } from '../sentAhead.js';
import type { CacheMap } from '../teleportMap.js';
import type { ExpectedUse } from './hotPages.js';
import type { SwitchLink } from './switchLink.js';

/** QEMU's stream takes turns with this. */
const maxTurnMs = 8;

export class UsedAhead implements Disposable {
  readonly pages: SentAhead;
  readonly #memory: ReadableMemory;
  readonly #link: Pick<SwitchLink, 'sendOrdered' | 'isOpenForBulk'>;
  readonly #sender: AheadSender;
  /** Not acknowledged yet. */
  readonly #sequences = new Set<number>();
  readonly #ended = new AbortController();
  #hasBegun = false;

  /** @param done - called when nothing waits for this any more */
  constructor(
    memory: ReadableMemory,
    link: Pick<SwitchLink, 'sendOrdered' | 'isOpenForBulk'>,
    { compress, done }: { readonly compress: boolean; readonly done: () => void },
  ) {
    this.pages = new SentAhead(memory, { awaitsCache: true });
    this.#memory = memory;
    this.#link = link;
    const sink = {
      isOpen: () => this.isFirst && link.isOpenForBulk,
      send: (batch: Buffer) => void this.#sequences.add(link.sendOrdered(frameType.ahead, batch)),
      paused: () => {
        if (!this.isFirst) done();
      },
    };
    this.#sender = new AheadSender(this.pages, sink, { compress, turnMs: maxTurnMs });
  }

  /** Once the relays have met. @throws PagerError when it cannot be read */
  async begin(): Promise<void> {
    this.#link.sendOrdered(frameType.memory, encodeMemory(this.#memory.blocks));
    this.#hasBegun = true;
    this.#sender.pump();
    await this.pages.survey(this.#ended.signal);
    this.#sender.pump();
  }

  favour({ now, soon, later }: ExpectedUse): void {
    this.pages.favour([...now, ...soon, ...later]);
    this.#sender.pump();
  }

  /** What need not be sent; null: nothing more is going to be known. */
  know(map: CacheMap | null): void {
    this.pages.know(map);
    this.#sender.pump();
  }

  /** What QEMU's stream has brought is to wait for this. */
  get isFirst(): boolean {
    const { isOver, isWaiting } = this.pages;
    return this.#hasBegun && !isOver && !isWaiting && !this.#sender.isEnded;
  }

  /** The link may take more. */
  pump(): void {
    this.#sender.pump();
  }

  /** @returns whether the destination speaks of what was sent ahead */
  acknowledged({ type, payload }: Frame): boolean {
    if (type !== frameType.acknowledge) return false;
    const sequences = [...decodeSequences(payload)];
    if (sequences.length === 0 || !sequences.every((sequence) => this.#sequences.has(sequence))) return false;
    for (const sequence of sequences) this.#sequences.delete(sequence);
    return true;
  }

  /** Sends nothing from now on. */
  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#sender[Symbol.dispose]();
  }
}
