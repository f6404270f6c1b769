/**
 * Starting again with another relay at the destination: what it does not find placed in QEMU is unsent
 * again. What was under way goes first, as it would have gone.
 */
import { type ReferenceRun, type StoreContents, waiting } from './contents.js';
import { StoreError } from './errors.js';
import type { Flight, Flights } from './flights.js';
import { type PageTable, pageState } from './pageTable.js';

/** @param isPlaced - by page id */
export function resync(contents: StoreContents, flights: Flights, isPlaced: (id: number) => boolean): void {
  const { table, lists } = contents;
  requirePlaced(table, isPlaced);
  for (const flight of flights.abandon()) land(contents, flight);
  for (let id = 0; id < table.totalPages; id++) {
    const state = table.state[id]!;
    if (state === pageState.unknown || state === pageState.placed) continue;
    if (isPlaced(id)) {
      // Fills too: what is placed must not be placed again.
      contents.supersede(id);
      table.move(id, pageState.placed);
    } else if (state === pageState.fillTold) {
      table.move(id, pageState.fill);
      lists.append(waiting.cheap, id);
    }
  }
}

/** What a batch carried, and no later one, is unsent again. */
export function land(contents: StoreContents, flight: Flight): void {
  const { table, lists } = contents;
  for (let at = 0; at < flight.runs.length; at += 2) {
    const first = flight.runs[at]!;
    for (let id = first; id < first + flight.runs[at + 1]!; id++) {
      if (!table.isCarriedBy(id, flight.token)) continue;
      const isFill = table.state[id] === pageState.fillSent;
      table.move(id, isFill ? pageState.fill : pageState.bytes);
      lists.append(isFill ? waiting.cheap : waiting.front, id);
    }
  }
  for (const run of flight.references.values()) landReference(contents, run, flight.token);
}

/** Before anything has changed: its bytes are gone. */
function requirePlaced(table: PageTable, isPlaced: (id: number) => boolean): void {
  for (let id = 0; id < table.totalPages; id++) {
    if (table.state[id] !== pageState.placed || isPlaced(id)) continue;
    const block = table.blockOf(id);
    const page = id - table.firstOfBlock[block]!;
    throw new StoreError('VMMIG_STORE_LOST', `the destination has lost page ${page} of block ${block}`);
  }
}

/** A reference again when it still holds as a whole, else pages of bytes. */
function landReference(contents: StoreContents, run: ReferenceRun, token: number): void {
  const { table, lists, slabs } = contents;
  const isLatest = (index: number) => table.isCarriedBy(run.firstId + index, token);
  let isWhole = true;
  for (let index = 0; index < run.slots.length; index++) isWhole &&= isLatest(index);
  if (isWhole) {
    for (let index = 0; index < run.slots.length; index++) table.move(run.firstId + index, pageState.reference);
    lists.append(waiting.cheap, run.firstId);
    return;
  }
  run.slots.forEach((slot, index) => {
    if (isLatest(index)) {
      table.set(run.firstId + index, pageState.bytes, slot);
      lists.append(waiting.front, run.firstId + index);
    } else slabs.free(slot);
  });
  contents.forgetRun(run);
}
