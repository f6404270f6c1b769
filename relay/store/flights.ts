/**
 * What is under way: batches that were sent and not acknowledged. A page belongs to the last batch that
 * carried it, and only that one's acknowledgement settles it.
 */
import { pageBytes } from '../digest.js';
import type { RetainedRun } from '../source/window.js';
import type { ReferenceRun, StoreContents } from './contents.js';
import { pageState } from './pageTable.js';

/** A batch that was filled. */
export interface SentSet {
  /** By which it is acknowledged. */
  readonly token: number;
  readonly fillPages: number;
  readonly bytesPages: number;
  readonly referencePages: number;
}

export class Flight {
  /** Runs of fills and of bytes: first id, count, and so on. */
  readonly runs: number[] = [];
  /** By the index of their record in the batch. */
  readonly references = new Map<number, ReferenceRun>();
  /** Records of which the bytes were asked for. */
  readonly asked = new Set<number>();
  fillPages = 0;
  bytesPages = 0;
  referencePages = 0;

  constructor(readonly token: number) {}

  add(id: number): void {
    const { runs } = this;
    const last = runs.length - 2;
    if (last >= 0 && runs[last]! + runs[last + 1]! === id) runs[last + 1]!++;
    else runs.push(id, 1);
  }

  get pages(): number {
    return this.fillPages + this.bytesPages + this.referencePages;
  }
}

export class Flights {
  readonly #flights = new Map<number, Flight>();
  #lastToken = 0;

  constructor(private readonly contents: StoreContents) {}

  /** It takes off with `launch`, and not at all when nothing was put in it. */
  prepare(): Flight {
    return new Flight(this.#lastToken + 1);
  }

  launch(flight: Flight): SentSet | null {
    if (flight.pages === 0) return null;
    const { token, fillPages, bytesPages, referencePages } = flight;
    this.#lastToken = token;
    this.#flights.set(token, flight);
    return { token, fillPages, bytesPages, referencePages };
  }

  /** @returns false when no such batch is under way */
  acknowledge(token: number): boolean {
    const flight = this.#flights.get(token);
    if (flight === undefined) return false;
    this.#flights.delete(token);
    const { table, slabs } = this.contents;
    for (let at = 0; at < flight.runs.length; at += 2) {
      const first = flight.runs[at]!;
      for (let id = first; id < first + flight.runs[at + 1]!; id++) if (table.isCarriedBy(id, token)) this.settle(id);
    }
    for (const run of flight.references.values()) {
      run.slots.forEach((slot, index) => {
        if (table.isCarriedBy(run.firstId + index, token)) table.move(run.firstId + index, pageState.placed);
        slabs.free(slot);
      });
      this.contents.forgetRun(run);
    }
    return true;
  }

  /** A page of a fill or of bytes has arrived. */
  settle(id: number): void {
    const { table, slabs } = this.contents;
    if (table.state[id] === pageState.fillSent) table.move(id, pageState.fillTold);
    else {
      slabs.free(table.content[id]!);
      table.move(id, pageState.placed);
    }
  }

  bytesOf(token: number, record: number): RetainedRun | null {
    const flight = this.#flights.get(token);
    const run = flight?.references.get(record);
    if (flight === undefined || run === undefined || flight.asked.has(record)) return null;
    flight.asked.add(record);
    const { table, slabs } = this.contents;
    const count = run.slots.length;
    const bytes = Buffer.allocUnsafe(count * pageBytes);
    run.slots.forEach((slot, index) => {
      const start = slabs.locate(slot);
      slabs.source.copy(bytes, index * pageBytes, start, start + pageBytes);
    });
    const block = table.blockOf(run.firstId);
    return { block, page: run.firstId - table.firstOfBlock[block]!, count, bytes };
  }

  /** One that will not be acknowledged; null when no such batch is under way. */
  take(token: number): Flight | null {
    const flight = this.#flights.get(token) ?? null;
    this.#flights.delete(token);
    return flight;
  }

  /** All that is under way, which will not be acknowledged any more. */
  abandon(): Flight[] {
    const flights = [...this.#flights.values()];
    this.#flights.clear();
    return flights;
  }
}
