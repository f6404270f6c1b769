/**
 * What is sent of a guest's memory before QEMU's stream has it, where it is in no file: what the guest will look at first. The
 * stream brings it by address, much of it in the last moment before the guest stops. See sentAhead.ts.
 */
import type { Digester } from '../../../pager/index.js';
import { BatchBuilder, maxBatchPages } from '../../link/batch.js';
import { type Frame, frameType } from '../../link/frames.js';
import { decodeSequences } from '../../link/sequences.js';
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
  readonly #compress: boolean;
  readonly #done: () => void;
  readonly #builder = new BatchBuilder();
  /** Not acknowledged yet. */
  readonly #sequences = new Set<number>();
  readonly #ended = new AbortController();
  #isSurveyed = false;
  #isDue = false;

  /** @param done - called when nothing waits for this any more */
  constructor(
    memory: ReadableMemory,
    digester: Digester,
    link: Pick<SwitchLink, 'sendOrdered' | 'isOpenForBulk'>,
    { compress, done }: { readonly compress: boolean; readonly done: () => void },
  ) {
    this.pages = new SentAhead(memory, digester, { awaitsCache: true });
    this.#memory = memory;
    this.#link = link;
    this.#compress = compress;
    this.#done = done;
  }

  /** Once the relays have met. @throws PagerError when it cannot be read */
  async begin(): Promise<void> {
    this.#link.sendOrdered(frameType.memory, encodeMemory(this.#memory.blocks));
    await this.pages.survey(this.#ended.signal);
    this.#isSurveyed = true;
    this.pump();
  }

  favour({ now, soon, later }: ExpectedUse): void {
    this.pages.favour([...now, ...soon, ...later]);
    this.pump();
  }

  /** What need not be sent; null: nothing more is going to be known. */
  know(map: CacheMap | null): void {
    this.pages.know(map);
    this.pump();
  }

  /** What QEMU's stream has brought is to wait for this. */
  get isFirst(): boolean {
    const { isOver, isWaiting } = this.pages;
    return this.#isSurveyed && !isOver && !isWaiting && !this.#ended.signal.aborted;
  }

  /** As much as the link takes. Whatever else is due comes in between. */
  pump(): void {
    if (!this.#maySend || this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (this.#maySend) this.#send();
      if (!this.isFirst) this.#done();
    });
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
  }

  get #maySend(): boolean {
    return this.isFirst && this.#link.isOpenForBulk;
  }

  #send(): void {
    try {
      for (const untilMs = performance.now() + maxTurnMs; this.#maySend && performance.now() < untilMs; )
        if (this.pages.fill(this.#builder, maxBatchPages) > 0)
          this.#sequences.add(this.#link.sendOrdered(frameType.ahead, this.#builder.take(this.#compress)));
    } catch {
      // QEMU's stream has it.
      this.#ended.abort();
    }
    this.pump();
  }
}
