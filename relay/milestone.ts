/** Something that is reached once, or never: whatever is said first counts. */
export class Milestone<Value> {
  /** Rejects when it will never be reached. */
  readonly reached: Promise<Value>;
  #resolve!: (value: Value | PromiseLike<Value>) => void;
  #reject!: (error: Error) => void;
  #isDecided = false;

  constructor() {
    this.reached = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Not everyone waits for it.
    this.reached.catch(() => {});
  }

  /** Whether it was said what becomes of it, even if what it is reached with is still to come. */
  get isDecided(): boolean {
    return this.#isDecided;
  }

  /** @returns whether it was not decided before */
  reach(value: Value | PromiseLike<Value>): boolean {
    const isFirst = !this.#isDecided;
    this.#isDecided = true;
    this.#resolve(value);
    return isFirst;
  }

  /** @returns whether it was not decided before */
  miss(error: Error): boolean {
    const isFirst = !this.#isDecided;
    this.#isDecided = true;
    this.#reject(error);
    return isFirst;
  }
}
