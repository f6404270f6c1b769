/** Feeds a decoder with changed inputs, goes on from those that got somewhere new, and says what it finds. */
import { Coverage } from './coverage.js';
import type { Decoder } from './decoder.js';
import { evaluate, type Finding, heldBytes } from './evaluate.js';
import { type MutationOptions, mutate } from './mutate.js';
import { Random } from './random.js';

export interface FuzzOptions {
  readonly seed: number;
  readonly inputs: number;
  /** What to begin with besides the seeds. */
  readonly corpus: readonly Buffer[];
  /** Measure coverage now and then: slower, and more is found. */
  readonly isGuided: boolean;
  /** Told of each input before the decoder gets it. */
  readonly trying?: (input: Buffer) => void;
  readonly found: (input: Buffer, finding: Finding) => void;
}

export interface FuzzResult {
  readonly outcomes: ReadonlySet<string>;
  /** Blocks of code that were reached while coverage was measured. */
  readonly blocks: number;
  readonly pool: number;
}

const defaultMaxBytes = 16 * 1024;
/** Some messages have text from the input in them. */
const maxOutcomes = 400;
const maxPool = 2000;
const maxPoolBytes = 16 * 2 ** 20;
/** Coverage is measured for the first of so many inputs, in batches. */
const coveragePeriod = 100_000;
const coveredInputs = 12_000;
const batchInputs = 100;
const leakCheckInputs = 50_000;
const maxLeakBytes = 64 * 2 ** 20;

export function fuzz(decoder: Decoder, options: FuzzOptions): FuzzResult {
  const random = new Random(options.seed, decoder.name);
  const mutation: MutationOptions = {
    maxBytes: decoder.maxBytes ?? defaultMaxBytes,
    dictionary: (decoder.dictionary ?? []).map((word) => Buffer.from(word as string)),
    records: decoder.records?.bind(decoder) ?? null,
  };
  const pool: Buffer[] = [...decoder.seeds(), ...options.corpus];
  let poolBytes = pool.reduce((sum, { length }) => sum + length, 0);
  const outcomes = new Set<string>();
  const attempt = (input: Buffer) => {
    options.trying?.(input);
    const { finding, outcome } = evaluate(decoder, input, random);
    if (finding !== null) options.found(input, finding);
    const isNew = outcomes.size < maxOutcomes && !outcomes.has(outcome);
    if (isNew) outcomes.add(outcome);
    return isNew;
  };
  const keep = (input: Buffer) => {
    poolBytes += input.length;
    if (pool.length < maxPool && poolBytes < maxPoolBytes) pool.push(input);
    else {
      const at = random.below(pool.length);
      poolBytes -= pool[at]!.length;
      pool[at] = input;
    }
  };
  for (const seed of pool.slice()) attempt(seed);
  const next = () => {
    // The newest inputs are the least explored.
    const at = random.oneIn(2) ? random.below(pool.length) : pool.length - 1 - random.below(Math.min(pool.length, 40));
    const mutated = mutate(pool[at]!, pool, random, mutation);
    return decoder.repair !== undefined && !random.oneIn(4) ? decoder.repair(Buffer.from(mutated)) : mutated;
  };

  const reached = new Set<string>();
  global.gc?.();
  const heldAtFirst = heldBytes();
  for (let done = 0; done < options.inputs; ) {
    if (options.isGuided && done % coveragePeriod === 0) {
      const inputs = Math.min(coveredInputs, options.inputs - done);
      coverInputs(reached, inputs, next, attempt, keep);
      done += inputs;
      continue;
    }
    const input = next();
    if (attempt(input)) keep(input);
    done++;
    if (done % leakCheckInputs === 0) checkLeak(heldAtFirst, options, input);
  }
  return { outcomes, blocks: reached.size, pool: pool.length };
}

/** Keeps those that reach new code, too. It is looked for in batches, and then for which of the batch it was. */
function coverInputs(
  reached: Set<string>,
  inputs: number,
  next: () => Buffer,
  attempt: (input: Buffer) => boolean,
  keep: (input: Buffer) => void,
): void {
  using coverage = new Coverage();
  for (let done = 0; done < inputs; done += batchInputs) {
    const batch = Array.from({ length: Math.min(batchInputs, inputs - done) }, next);
    for (const input of batch) if (attempt(input)) keep(input);
    const fresh = new Set([...coverage.take()].filter((block) => !reached.has(block)));
    for (const block of fresh) reached.add(block);
    for (let at = 0; at < batch.length && fresh.size > 0; at++) {
      attempt(batch[at]!);
      const blocks = [...coverage.take()].filter((block) => fresh.delete(block));
      if (blocks.length > 0) keep(batch[at]!);
    }
  }
}

function checkLeak(heldAtFirst: number, options: FuzzOptions, input: Buffer): void {
  let grownBytes = Infinity;
  // What lies outside of the heap is counted as free by the collection after the one that frees it.
  for (let collections = 0; collections < 3 && grownBytes > maxLeakBytes; collections++) {
    global.gc?.();
    grownBytes = heldBytes() - heldAtFirst;
  }
  if (grownBytes > maxLeakBytes) options.found(input, { kind: 'memory', message: `${grownBytes} bytes are kept` });
}
