/** Whether a decoder does what it must with an input: decodes it or throws its own error, soon, in little memory. */
import { isDeepStrictEqual } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import { cut } from './chunks.js';
import type { Decoded, Decoder } from './decoder.js';
import type { Random } from './random.js';

export interface Finding {
  /** `untyped`: another error than the module's own. `wrong`: decoded, but not as it should be. */
  readonly kind: 'untyped' | 'wrong' | 'slow' | 'memory' | 'hang' | 'crash';
  readonly message: string;
}

export interface Verdict {
  readonly finding: Finding | null;
  /** What became of the input, in a few words: inputs with new ones are worth going on from. */
  readonly outcome: string;
}

const limitMs = 250;
const defaultHeldBytes = 8 * 2 ** 20;
const heldPerByte = 100;

/** @param random decides how the input is cut up */
export function evaluate(decoder: Decoder, input: Buffer, random: Random): Verdict {
  const heldBefore = heldBytes();
  const beganMs = performance.now();
  const verdict = judge(decoder, input, random);
  const tookMs = performance.now() - beganMs;
  if (verdict.finding !== null) return verdict;
  if (tookMs > limitMs) {
    const againMs = Math.min(time(decoder, input), time(decoder, input));
    if (againMs > limitMs) return { ...verdict, finding: { kind: 'slow', message: `${Math.round(againMs)} ms` } };
  }
  const limitBytes = heldLimit(decoder, input);
  if (heldBytes() - heldBefore > limitBytes) {
    const grownBytes = growth(decoder, input);
    if (grownBytes > limitBytes) return { ...verdict, finding: { kind: 'memory', message: `${grownBytes} bytes` } };
  }
  return verdict;
}

function judge(decoder: Decoder, input: Buffer, random: Random): Verdict {
  const whole = attempt(decoder, [Buffer.from(input)]);
  let { finding } = whole;
  if (finding === null && decoder.isWhole !== true) finding = compare(whole, attempt(decoder, cut(input, random)));
  if (finding === null && whole.decoded?.encoded !== undefined) finding = checkEncoded(decoder, whole.decoded, input);
  return { finding, outcome: whole.outcome };
}

interface Attempt extends Verdict {
  readonly decoded: Decoded | null;
}

function attempt(decoder: Decoder, chunks: readonly Buffer[]): Attempt {
  try {
    const decoded = decoder.decode(chunks);
    return { decoded, finding: null, outcome: `decoded ${shapeOf(decoded.value)}` };
  } catch (error) {
    const outcome = outline(error);
    if (decoder.isTyped(error)) return { decoded: null, finding: null, outcome };
    const kind = error instanceof Error && error.name === 'OracleError' ? 'wrong' : 'untyped';
    return { decoded: null, finding: { kind, message: String(error) }, outcome };
  }
}

/** Both ways of cutting it up have to give the same. */
function compare(whole: Attempt, cutUp: Attempt): Finding | null {
  if (cutUp.finding !== null) return cutUp.finding;
  const isSame =
    whole.decoded === null || cutUp.decoded === null
      ? whole.decoded === cutUp.decoded && whole.outcome === cutUp.outcome
      : isDeepStrictEqual(whole.decoded.value, cutUp.decoded.value);
  return isSame ? null : { kind: 'wrong', message: `cut up: ${cutUp.outcome}; whole: ${whole.outcome}` };
}

function checkEncoded(decoder: Decoder, { value, encoded, isVerbatim }: Decoded, input: Buffer): Finding | null {
  if (isVerbatim === true)
    return encoded!.equals(input) ? null : { kind: 'wrong', message: 'the encoder gives other bytes' };
  const again = attempt(decoder, [Buffer.from(encoded!)]);
  if (again.finding !== null) return again.finding;
  if (again.decoded !== null && isDeepStrictEqual(again.decoded.value, value)) return null;
  return { kind: 'wrong', message: `encoded again it is: ${again.outcome}` };
}

/** An error's kind and place: its message without what depends on the input's numbers and names. */
function outline(error: unknown): string {
  const { code, name, message } = error as { code?: string; name?: string; message?: string };
  const text = String(message)
    .replace(/0x[0-9a-f]+/g, '#')
    .replace(/"(?:[^"\\]|\\.)*"/g, '""')
    .replace(/-?\d+(?:\.\d+)?(?:e\+?\d+)?/g, '#')
    .slice(0, 80);
  return `${code ?? name}: ${text}`;
}

function shapeOf(value: unknown): string {
  if (Array.isArray(value)) return `list of about ${Math.ceil(Math.log2(value.length + 1))}`;
  if (value === null || typeof value !== 'object') return typeof value;
  return Object.keys(value).sort().join().slice(0, 80);
}

/** Processor time: others may be busy here, too. */
function time(decoder: Decoder, input: Buffer): number {
  const before = process.cpuUsage();
  attempt(decoder, [Buffer.from(input)]);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

function growth(decoder: Decoder, input: Buffer): number {
  global.gc?.();
  const chunks = [Buffer.from(input)];
  const before = heldBytes();
  attempt(decoder, chunks);
  return heldBytes() - before;
}

function heldLimit(decoder: Decoder, input: Buffer): number {
  return (decoder.heldBytes ?? defaultHeldBytes) + heldPerByte * input.length;
}

export function heldBytes(): number {
  const { used_heap_size, external_memory } = getHeapStatistics();
  return used_heap_size + external_memory;
}
