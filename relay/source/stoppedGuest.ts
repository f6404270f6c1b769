/**
 * How long a guest that has stopped waits for a link that is interrupted. One that runs can wait for as long as the
 * operator likes; one that stands still is better off where it is than half moved.
 */

/** From when the interruption is noticed. */
export const stoppedPatienceMs = 5000;

export class StoppedGuest implements Disposable {
  readonly #patienceMs: number;
  readonly #giveUp: () => void;
  #isStopped = false;
  #isInterrupted = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param giveUp - called once patience is over */
  constructor(patienceMs: number, giveUp: () => void) {
    this.#patienceMs = patienceMs;
    this.#giveUp = giveUp;
  }

  stopped(): void {
    this.#isStopped = true;
    this.#wait();
  }

  interrupted(): void {
    this.#isInterrupted = true;
    this.#wait();
  }

  resumed(): void {
    this.#isInterrupted = false;
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(): void {
    if (this.#isStopped && this.#isInterrupted) this.#timer ??= setTimeout(this.#giveUp, this.#patienceMs);
  }
}
