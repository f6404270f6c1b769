/** Makes an input that shows a finding shorter and plainer, as long as it still shows it. */
import type { Decoder } from './decoder.js';
import { evaluate, type Finding } from './evaluate.js';
import { Random } from './random.js';

/** One way of cutting it up may not show it. */
const tries = 8;
const maxAttempts = 3000;

/** Whether an input shows a finding of that kind, cut up in one of some ways. */
export function shows(decoder: Decoder, input: Buffer, kind: Finding['kind']): boolean {
  const times = decoder.isWhole === true ? 1 : tries;
  for (let seed = 0; seed < times; seed++)
    if (evaluate(decoder, input, new Random(seed, decoder.name)).finding?.kind === kind) return true;
  return false;
}

/** @returns the input itself when it does not show the finding once more */
export function minimise(decoder: Decoder, input: Buffer, { kind }: Finding): Buffer {
  let attempts = 0;
  const holds = (candidate: Buffer) => attempts++ < maxAttempts && shows(decoder, candidate, kind);
  if (!holds(input)) return input;
  let best = input;
  for (let length = Math.ceil(best.length / 2); length > 0; length = length > 1 ? Math.ceil(length / 2) : 0)
    for (let at = 0; at < best.length; ) {
      const shorter = Buffer.concat([best.subarray(0, at), best.subarray(at + length)]);
      if (holds(shorter)) best = shorter;
      else at += length;
    }
  for (let at = 0; at < best.length; at++) {
    if (best[at] === 0) continue;
    const plainer = Buffer.from(best);
    plainer[at] = 0;
    if (holds(plainer)) best = plainer;
  }
  return best;
}
