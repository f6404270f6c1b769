/** Latencies in a fixed number of buckets that grow with the latency: percentiles that are right to some five percent. */

const bucketsPerOctave = 8;
/** From a microsecond to some 18 hours. */
const buckets = 36 * bucketsPerOctave;

export class LatencyHistogram {
  readonly #counts = new Float64Array(buckets);
  #count = 0;
  #maxMs = 0;

  get count(): number {
    return this.#count;
  }

  /** The longest, exactly. */
  get maxMs(): number {
    return this.#maxMs;
  }

  add(latencyMs: number): void {
    const bucket = Math.floor(Math.log2(Math.max(latencyMs * 1000, 1)) * bucketsPerOctave);
    this.#counts[Math.min(bucket, buckets - 1)]! += 1;
    this.#count += 1;
    this.#maxMs = Math.max(this.#maxMs, latencyMs);
  }

  /** What this share (0 to 1) of all latencies do not exceed; 0 when there are none. */
  percentileMs(share: number): number {
    let left = Math.ceil(share * this.#count);
    if (left <= 0) return 0;
    for (let bucket = 0; bucket < buckets; bucket++) {
      left -= this.#counts[bucket]!;
      if (left <= 0) return Math.min(2 ** ((bucket + 0.5) / bucketsPerOctave) / 1000, this.#maxMs);
    }
    return this.#maxMs;
  }
}
