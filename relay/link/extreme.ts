/** The smallest or largest value of the last one to two `memoryMs`. */
export class Extreme {
  readonly #choose: (left: number, right: number) => number;
  readonly #memoryMs: number;
  #previous: number | null = null;
  #current: number | null = null;
  #startedAtMs = 0;

  constructor(choose: (left: number, right: number) => number, memoryMs: number) {
    this.#choose = choose;
    this.#memoryMs = memoryMs;
  }

  get value(): number | null {
    if (this.#previous === null || this.#current === null) return this.#current;
    return this.#choose(this.#previous, this.#current);
  }

  add(value: number, nowMs: number): void {
    if (this.#current !== null && nowMs - this.#startedAtMs <= this.#memoryMs) {
      this.#current = this.#choose(this.#current, value);
      return;
    }
    this.#previous = this.#current;
    this.#current = value;
    this.#startedAtMs = nowMs;
  }

  restart(value: number, nowMs: number): void {
    this.#previous = null;
    this.#current = value;
    this.#startedAtMs = nowMs;
  }
}
