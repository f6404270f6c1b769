/** Makes RAM sections of single pages. Each stands for itself, so that sections can change places. */
import { StreamEncoder } from '../../../stream/encoder.js';
import type { RamBlock } from '../../../stream/handler.js';
import type { Piece } from './outbox.js';

/** Room for the head and the end of a section, and for its last page. */
const slackBytes = 16 * 1024;

export class SectionWriter {
  readonly #encoder: StreamEncoder;
  readonly #sectionId: number;
  #runs: number[] = [];

  /** @param sectionBytes about as long as sections get */
  constructor(sectionId: number, sectionBytes: number) {
    this.#sectionId = sectionId;
    this.#encoder = new StreamEncoder({ batchBytes: sectionBytes + slackBytes });
  }

  get pendingBytes(): number {
    return this.#encoder.pendingBytes;
  }

  page(block: RamBlock, page: number, bytes: Buffer, start: number): void {
    this.#add(block.index, page);
    this.#encoder.page(block, page, bytes, start);
  }

  zero(block: RamBlock, page: number): void {
    this.#add(block.index, page);
    this.#encoder.zeroPage(block, page);
  }

  /** The section with all pages since the last one; there must be some. */
  take(taken: () => void = () => {}): Piece {
    this.#encoder.eos();
    this.#encoder.footer(this.#sectionId);
    const runs = this.#runs;
    this.#runs = [];
    const bytes = this.#encoder.take();
    return {
      bytes,
      runs,
      taken: () => {
        this.#encoder.recycle(bytes);
        taken();
      },
    };
  }

  #add(block: number, page: number): void {
    const runs = this.#runs;
    if (runs.length === 0) {
      this.#encoder.sectionContinue('part', this.#sectionId);
      this.#encoder.nameNextBlock();
    }
    const last = runs.length - 3;
    if (last >= 0 && runs[last] === block && runs[last + 1]! + runs[last + 2]! === page) runs[last + 2]! += 1;
    else runs.push(block, page, 1);
  }
}
