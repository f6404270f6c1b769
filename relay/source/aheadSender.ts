/** Sends memory ahead of QEMU's stream, as much as the link takes. Whatever else is due comes in between. */
import { BatchBuilder, maxBatchPages } from '../link/batch.js';
import type { SentAhead } from './sentAhead.js';

export interface AheadSink {
  /** Whether the link takes more, and there is something to gain. */
  readonly isOpen: () => boolean;
  readonly send: (batch: Buffer) => void;
  /** A turn is over. */
  readonly paused: () => void;
}

export class AheadSender implements Disposable {
  readonly #pages: SentAhead;
  readonly #sink: AheadSink;
  readonly #options: { readonly compress: boolean; readonly turnMs: number };
  readonly #builder = new BatchBuilder();
  #isDue = false;
  #isEnded = false;

  /** @param options.turnMs - so long a turn lasts, and one batch at least */
  constructor(pages: SentAhead, sink: AheadSink, options: { readonly compress: boolean; readonly turnMs: number }) {
    this.#pages = pages;
    this.#sink = sink;
    this.#options = options;
  }

  /** It will not send any more; also when the memory cannot be read: QEMU's stream has it. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  pump(): void {
    if (!this.#maySend || this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (this.#maySend) this.#send();
      this.#sink.paused();
    });
  }

  [Symbol.dispose](): void {
    this.#isEnded = true;
  }

  get #maySend(): boolean {
    return !this.#isEnded && !this.#pages.isOver && this.#sink.isOpen();
  }

  #send(): void {
    const untilMs = performance.now() + this.#options.turnMs;
    try {
      do
        if (this.#pages.fill(this.#builder, maxBatchPages) > 0)
          this.#sink.send(this.#builder.take(this.#options.compress));
      while (this.#maySend && performance.now() < untilMs);
    } catch {
      this.#isEnded = true;
    }
    this.pump();
  }
}
