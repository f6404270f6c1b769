/** Something that is reached once, or never. */
export class Milestone<Value> {
  /** Rejects when it will never be reached. */
  readonly reached: Promise<Value>;
  reach!: (value: Value) => void;
  miss!: (error: Error) => void;

  constructor() {
    this.reached = new Promise((resolve, reject) => {
      this.reach = resolve;
      this.miss = reject;
    });
    // Not everyone waits for it.
    this.reached.catch(() => {});
  }
}
