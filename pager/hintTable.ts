/** Which pages of each group the destination holds as a hint, and the digest of the bytes that it was sent. */

const digestBytes = 16;

export class HintTable {
  /** Within the group. */
  readonly #start: Uint8Array;
  /** 0: nothing. */
  readonly #count: Uint8Array;
  readonly #digests: Uint8Array;
  /** Of all groups. */
  pages = 0;

  constructor(readonly groups: number) {
    this.#start = new Uint8Array(groups);
    this.#count = new Uint8Array(groups);
    this.#digests = new Uint8Array(groups * digestBytes);
  }

  startOf(group: number): number {
    return this.#start[group]!;
  }

  countOf(group: number): number {
    return this.#count[group]!;
  }

  set(group: number, start: number, count: number, digest: Buffer): void {
    this.pages += count - this.#count[group]!;
    this.#start[group] = start;
    this.#count[group] = count;
    this.#digests.set(digest, group * digestBytes);
  }

  matches(group: number, digest: Buffer): boolean {
    for (let at = 0; at < digestBytes; at++) if (this.#digests[group * digestBytes + at] !== digest[at]) return false;
    return true;
  }

  clear(group: number): void {
    this.pages -= this.#count[group]!;
    this.#count[group] = 0;
  }

  clearAll(): void {
    this.#count.fill(0);
    this.pages = 0;
  }
}
