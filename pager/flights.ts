/** What is under way to the destination, by batch. */
import type { CaptureBlock } from './captureBlock.js';

/** A batch that was filled. */
export interface SentSet {
  /** By which it is acknowledged. */
  readonly token: number;
  readonly fillPages: number;
  readonly bytesPages: number;
  readonly referencePages: number;
  /** Of these, references to what was hinted. */
  readonly heldPages: number;
}

interface Run {
  readonly block: CaptureBlock;
  readonly page: number;
  count: number;
  /** Of a reference: to what was hinted. */
  readonly isHeld?: boolean;
}

export class Flight {
  readonly runs: Run[] = [];
  /** By the index of their record in the batch, until the bytes are asked for. */
  readonly references = new Map<number, Run>();
  fillPages = 0;
  bytesPages = 0;
  referencePages = 0;
  heldPages = 0;

  get pages(): number {
    return this.fillPages + this.bytesPages + this.referencePages;
  }

  /** A page that the batch now has in its final version. */
  add(block: CaptureBlock, page: number): void {
    const last = this.runs.at(-1);
    if (last !== undefined && last.block === block && last.page + last.count === page) last.count++;
    else this.runs.push({ block, page, count: 1 });
    block.markSent(page, 1);
  }

  addReference(record: number, block: CaptureBlock, page: number, count: number, isHeld: boolean): void {
    const run = { block, page, count, isHeld };
    this.runs.push({ ...run });
    this.references.set(record, run);
    this.referencePages += count;
    if (isHeld) this.heldPages += count;
    block.markSent(page, count);
  }
}

export class Flights {
  readonly #flights = new Map<number, Flight>();
  #lastToken = 0;

  /** @returns null for a batch with nothing in it */
  launch(flight: Flight): SentSet | null {
    if (flight.pages === 0) return null;
    const token = ++this.#lastToken;
    this.#flights.set(token, flight);
    const { fillPages, bytesPages, referencePages, heldPages } = flight;
    return { token, fillPages, bytesPages, referencePages, heldPages };
  }

  acknowledge(token: number): boolean {
    const flight = this.#flights.get(token);
    if (flight === undefined) return false;
    this.#flights.delete(token);
    for (const { block, page, count } of flight.runs) block.acknowledge(page, count);
    return true;
  }

  /** The reference's run, once. */
  takeReference(token: number, record: number): Run | null {
    const references = this.#flights.get(token)?.references;
    const run = references?.get(record);
    if (references === undefined || run === undefined) return null;
    references.delete(record);
    return run;
  }

  clear(): void {
    this.#flights.clear();
  }
}
