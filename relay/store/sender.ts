/**
 * Decides what goes next. Fills and references first, in batches of their own: they cost the link nothing,
 * and a reference that waits for its disk must not keep pages of bytes from being acknowledged.
 */
import { type BatchBuilder, maxBatchPages } from '../link/batch.js';
import { type StoreContents, waiting } from './contents.js';
import type { Flight, Flights, SentSet } from './flights.js';
import { pageState } from './pageTable.js';

/** `captured`: first captured, first sent. `recent`: the other way round. */
export type SendOrder = 'captured' | 'recent';

/** So many fills, next to each other as they mostly are, are no more work than a page. */
const fillsForPage = 32;

/** What became of the pages that were wanted at once. */
export interface Taken {
  readonly sent: SentSet | null;
  /** Pages of the range that are under way already. */
  readonly inFlightPages: number;
}

export class Sender {
  order: SendOrder = 'captured';
  readonly #chosen = new Uint32Array(maxBatchPages);

  constructor(
    private readonly contents: StoreContents,
    private readonly flights: Flights,
  ) {}

  fillBatch(builder: BatchBuilder, limitPages: number): SentSet | null {
    const flight = this.flights.prepare();
    this.#fillCheap(builder, limitPages, flight);
    if (flight.pages === 0) this.#fillBytes(builder, limitPages, flight);
    return this.flights.launch(flight);
  }

  takeNow(from: number, to: number, builder: BatchBuilder): Taken {
    const { table } = this.contents;
    const flight = this.flights.prepare();
    let inFlightPages = 0;
    for (let id = from; id < to && !builder.isFull; id++) {
      const state = table.state[id]!;
      if (state === pageState.fill) this.#sendFill(id, builder, flight);
      else if (state === pageState.bytes) this.#sendBytes(id, builder, flight);
      else if (state === pageState.reference) this.#sendReference(id, builder, flight);
      else if (table.isUnderWay(id) && !table.isCarriedBy(id, flight.token)) inFlightPages++;
    }
    return { sent: this.flights.launch(flight), inFlightPages };
  }

  /** Of these only pages of bytes have to wait at all. */
  moveToFront(from: number, to: number): void {
    const { table, lists } = this.contents;
    for (let id = to - 1; id >= from; id--) {
      if (table.state[id] !== pageState.bytes) continue;
      lists.unlink(id);
      lists.prepend(waiting.front, id);
    }
  }

  #fillCheap(builder: BatchBuilder, limitPages: number, flight: Flight): void {
    const { table, lists } = this.contents;
    for (let id = lists.first(waiting.cheap); id >= 0 && !builder.isFull; id = lists.first(waiting.cheap)) {
      if (table.state[id] === pageState.fill) {
        if (flight.fillPages >= limitPages * fillsForPage) return;
        this.#sendFill(id, builder, flight);
      } else {
        // A reference is sent whole: one that is longer than the limit goes alone.
        const pages = flight.referencePages + this.contents.runOf(id).slots.length;
        if (pages > limitPages && flight.pages > 0) return;
        this.#sendReference(id, builder, flight);
      }
    }
  }

  /** By address within the batch: fewer runs, which compress better and are placed in fewer writes. */
  #fillBytes(builder: BatchBuilder, limitPages: number, flight: Flight): void {
    const { lists } = this.contents;
    const limit = Math.min(limitPages, maxBatchPages);
    let count = 0;
    const choose = (list: number, isFromEnd: boolean): void => {
      for (let id = isFromEnd ? lists.last(list) : lists.first(list); id >= 0 && count < limit; ) {
        this.#chosen[count++] = id;
        id = isFromEnd ? lists.before(id) : lists.after(id);
      }
    };
    choose(waiting.front, false);
    choose(waiting.bytes, this.order === 'recent');
    this.#chosen.subarray(0, count).sort();
    for (let at = 0; at < count; at++) this.#sendBytes(this.#chosen[at]!, builder, flight);
  }

  #sendFill(id: number, builder: BatchBuilder, flight: Flight): void {
    const { table, lists } = this.contents;
    const block = table.blockOf(id);
    builder.addFill(block, id - table.firstOfBlock[block]!, table.content[id]!);
    lists.unlink(id);
    table.send(id, pageState.fillSent, flight.token);
    flight.add(id);
    flight.fillPages++;
  }

  #sendBytes(id: number, builder: BatchBuilder, flight: Flight): void {
    const { table, lists, slabs } = this.contents;
    const block = table.blockOf(id);
    const start = slabs.locate(table.content[id]!);
    builder.addPage(block, id - table.firstOfBlock[block]!, slabs.source, start);
    lists.unlink(id);
    table.send(id, pageState.bytesSent, flight.token);
    flight.add(id);
    flight.bytesPages++;
  }

  /** The whole run that the page is part of. */
  #sendReference(id: number, builder: BatchBuilder, flight: Flight): void {
    const { table, lists } = this.contents;
    const run = this.contents.runOf(id);
    const { firstId, disk, diskOffsetBytes, digest } = run;
    const count = run.slots.length;
    const block = table.blockOf(firstId);
    const page = firstId - table.firstOfBlock[block]!;
    const record = builder.addReference(block, page, count, disk, diskOffsetBytes, digest);
    lists.unlink(firstId);
    for (let index = 0; index < count; index++) table.send(firstId + index, pageState.referenceSent, flight.token);
    flight.references.set(record, run);
    flight.referencePages += count;
  }
}
