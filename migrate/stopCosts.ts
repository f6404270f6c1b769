/**
 * What a teleport's stop takes however little is to be sent, measured on the way: from the last byte of memory to the guest
 * running on the destination, without the time that bytes need on the link.
 */
import { call } from '../host-service/protocol.js';
import type { Journal } from './journal.js';
import type { Side } from './sides.js';

/** QEMU's own: stopping the guest and saving its devices there, loading and letting it run here. */
const qemuMs = 35;
const intervalMs = 1_000;
const kept = 5;

export class StopCosts implements Disposable {
  readonly #sourceMs: number[] = [];
  readonly #destinationMs: number[] = [];
  readonly #journal: Journal;
  readonly #timer: NodeJS.Timeout;

  constructor(source: Side, destination: Side, journal: Journal) {
    this.#journal = journal;
    const measure = () => {
      void timed(source, this.#sourceMs);
      void timed(destination, this.#destinationMs);
    };
    measure();
    this.#timer = setInterval(measure, intervalMs);
    this.#timer.unref();
  }

  /** @param rttMs - between the hosts */
  fixedMs(rttMs: number): number {
    const source = usual(this.#sourceMs);
    const destination = usual(this.#destinationMs);
    // Both relays have compared: the command hears of it over two ways, and holds the source while the journal is written.
    const toldMs = Math.max(destination / 2, rttMs / 2 + source / 2);
    const heldMs = Math.max(source, this.#journal.syncMs);
    return qemuMs + rttMs / 2 + toldMs + heldMs + destination / 2;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Of an odd number, the middle one: an outlier says nothing of the next time. */
function usual(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}

async function timed(side: Side, into: number[]): Promise<void> {
  const startMs = performance.now();
  try {
    await call(side.rpc, 'host.clock', {});
  } catch {
    return; // A session that is lost is noticed elsewhere.
  }
  into.push(performance.now() - startMs);
  if (into.length > kept) into.shift();
}
