/**
 * The orders in which pages wait to be sent: circular doubly linked lists over page ids, in two arrays. A
 * page is in one list at most and leaves it without anyone having to know which.
 */
export class PageLists {
  readonly #next: Uint32Array;
  readonly #previous: Uint32Array;

  /** @param lists - how many; each has a node of its own behind the pages' */
  constructor(
    private readonly pages: number,
    lists: number,
  ) {
    this.#next = new Uint32Array(pages + lists);
    this.#previous = new Uint32Array(pages + lists);
    for (let node = pages; node < pages + lists; node++) this.#next[node] = this.#previous[node] = node;
  }

  append(list: number, id: number): void {
    this.#insertAfter(this.#previous[this.pages + list]!, id);
  }

  prepend(list: number, id: number): void {
    this.#insertAfter(this.pages + list, id);
  }

  unlink(id: number): void {
    const next = this.#next[id]!;
    const previous = this.#previous[id]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  /** @returns -1 when the list is empty, as do all that follow at the list's end */
  first(list: number): number {
    return this.#page(this.#next[this.pages + list]!);
  }

  last(list: number): number {
    return this.#page(this.#previous[this.pages + list]!);
  }

  after(id: number): number {
    return this.#page(this.#next[id]!);
  }

  before(id: number): number {
    return this.#page(this.#previous[id]!);
  }

  #page(node: number): number {
    return node < this.pages ? node : -1;
  }

  #insertAfter(node: number, id: number): void {
    const next = this.#next[node]!;
    this.#next[node] = id;
    this.#previous[id] = node;
    this.#next[id] = next;
    this.#previous[next] = id;
  }
}
