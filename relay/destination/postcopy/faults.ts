/** The guest's faults that QEMU asked pages for: which wait for an answer, and how long answers took. */
import { LatencyHistogram } from './latencyHistogram.js';

/** What a page came from: `zero` needed nothing, `local` was here or on a disk here, `remote` came from the source. */
export type FaultAnswer = 'zero' | 'local' | 'remote';

export interface LatencySummary {
  readonly count: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** From QEMU's request being read to the page being handed over; those whose page had been written already do not count. */
export interface FaultStatistics extends LatencySummary {
  /** In the last second. */
  readonly perSecond: number;
  /** Asked for and not answered. */
  readonly waiting: number;
  readonly answers: Readonly<Record<FaultAnswer, LatencySummary>>;
}

interface Waiting {
  readonly block: number;
  readonly page: number;
  readonly askedAtMs: number;
}

const slotMs = 100;
const slots = 10;

export class Faults {
  /** By block and page. */
  readonly #waiting = new Map<number, Waiting>();
  readonly #all = new LatencyHistogram();
  readonly #answers = { zero: new LatencyHistogram(), local: new LatencyHistogram(), remote: new LatencyHistogram() };
  /** Faults in each of the last slots, and which slot that was. */
  readonly #recent = new Float64Array(slots);
  readonly #recentSlot = new Float64Array(slots).fill(-1);

  get statistics(): FaultStatistics {
    return {
      ...summarize(this.#all),
      perSecond: this.#perSecond(),
      waiting: this.#waiting.size,
      answers: {
        zero: summarize(this.#answers.zero),
        local: summarize(this.#answers.local),
        remote: summarize(this.#answers.remote),
      },
    };
  }

  /** Notes a fault; false when its page was asked for before and is still waited for. */
  ask(block: number, page: number): boolean {
    const key = pageKey(block, page);
    if (this.#waiting.has(key)) return false;
    this.#waiting.set(key, { block, page, askedAtMs: performance.now() });
    const slot = Math.floor(performance.now() / slotMs);
    const at = slot % slots;
    if (this.#recentSlot[at] !== slot) {
      this.#recentSlot[at] = slot;
      this.#recent[at] = 0;
    }
    this.#recent[at]! += 1;
    return true;
  }

  /** All pages that are waited for. */
  waiting(): { readonly block: number; readonly page: number }[] {
    return [...this.#waiting.values()];
  }

  isWaiting(block: number, page: number): boolean {
    return this.#waiting.has(pageKey(block, page));
  }

  /** The pages of a run that are waited for; null when none is. */
  within(block: number, page: number, count: number): number[] | null {
    let found: number[] | null = null;
    for (const each of this.#waiting.values()) {
      if (each.block !== block || each.page < page || each.page >= page + count) continue;
      found ??= [];
      found.push(each.page);
    }
    return found;
  }

  /** The page is about to be written; what is returned is to be called when it has been. */
  answer(block: number, page: number, answer: FaultAnswer): () => void {
    const key = pageKey(block, page);
    const asked = this.#waiting.get(key);
    this.#waiting.delete(key);
    return () => {
      if (asked === undefined) return;
      const latencyMs = performance.now() - asked.askedAtMs;
      this.#all.add(latencyMs);
      this.#answers[answer].add(latencyMs);
    };
  }

  #perSecond(): number {
    const now = Math.floor(performance.now() / slotMs);
    let total = 0;
    for (let at = 0; at < slots; at++) if (this.#recentSlot[at]! > now - slots) total += this.#recent[at]!;
    return total;
  }
}

/** A number for a page of a block, below 2^53. */
export function pageKey(block: number, page: number): number {
  return block * 2 ** 32 + page;
}

function summarize(histogram: LatencyHistogram): LatencySummary {
  return {
    count: histogram.count,
    p50Ms: histogram.percentileMs(0.5),
    p90Ms: histogram.percentileMs(0.9),
    p99Ms: histogram.percentileMs(0.99),
    maxMs: histogram.maxMs,
  };
}
