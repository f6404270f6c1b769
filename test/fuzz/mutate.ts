/**
 * Changes sound inputs into ones that nobody would send: bits and bytes; numbers of every width and either order, above
 * all to values at which lengths and offsets turn over; stretches that are lost, doubled, moved, or from another input;
 * and the same with whole records, where the decoder's table says where these begin.
 */
import type { Random } from './random.js';

export interface MutationOptions {
  readonly maxBytes: number;
  /** Byte strings that mean something to the decoder. */
  readonly dictionary: readonly Buffer[];
  /** Where records begin, ascending; not with 0. */
  readonly records: ((input: Buffer) => number[]) | null;
}

const interesting = [
  ...[0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 1023, 1024],
  ...[4095, 4096, 4097, 8192, 32767, 32768, 65535, 65536, 2 ** 20, 2 ** 22, 2 ** 22 + 1, 2 ** 24, 2 ** 30],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 4096, 2 ** 32 - 1],
];
const widths = [1, 2, 4, 4, 6] as const;

/** @param others inputs to take parts from */
export function mutate(input: Buffer, others: readonly Buffer[], random: Random, options: MutationOptions): Buffer {
  let bytes: Buffer = Buffer.from(input);
  const steps = 1 + random.below(random.oneIn(4) ? 12 : 3);
  for (let step = 0; step < steps; step++) bytes = mutateOnce(bytes, others, random, options);
  return bytes.length > options.maxBytes ? bytes.subarray(0, options.maxBytes) : bytes;
}

function mutateOnce(bytes: Buffer, others: readonly Buffer[], random: Random, options: MutationOptions): Buffer {
  if (bytes.length === 0) return random.bytes(1 + random.below(40));
  switch (random.below(options.records === null ? 11 : 15)) {
    case 0: {
      bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      return bytes;
    }
    case 1: {
      bytes[random.below(bytes.length)] = random.oneIn(2) ? random.next() : random.pick(interesting);
      return bytes;
    }
    case 2:
    case 3:
      return setNumber(bytes, random);
    case 4:
      return addToNumber(bytes, random);
    case 5: {
      const [from, to] = stretch(bytes, random);
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
    }
    case 6: {
      const [from, to] = stretch(bytes, random);
      const at = random.below(bytes.length + 1);
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(from, to), bytes.subarray(at)]);
    }
    case 7: {
      const at = random.below(bytes.length + 1);
      const noise = random.oneIn(2)
        ? random.bytes(1 + random.below(20))
        : Buffer.alloc(1 + random.below(300), random.next());
      return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
    }
    case 8:
      return bytes.subarray(0, random.below(bytes.length));
    case 9: {
      const other = others.length > 0 ? random.pick(others) : bytes;
      const [from, to] = stretch(other, random);
      const at = random.below(bytes.length + 1);
      const end = random.oneIn(2) ? at : Math.min(bytes.length, at + to - from);
      return Buffer.concat([bytes.subarray(0, at), other.subarray(from, to), bytes.subarray(end)]);
    }
    case 10: {
      if (options.dictionary.length === 0) return setNumber(bytes, random);
      const word = random.pick(options.dictionary);
      const at = random.below(bytes.length + 1);
      const end = random.oneIn(2) ? at : Math.min(bytes.length, at + word.length);
      return Buffer.concat([bytes.subarray(0, at), word, bytes.subarray(end)]);
    }
    default:
      return mutateRecords(bytes, others, random, options.records!);
  }
}

/** Loses, doubles, moves or borrows a whole record. */
function mutateRecords(
  bytes: Buffer,
  others: readonly Buffer[],
  random: Random,
  recordsOf: (input: Buffer) => number[],
): Buffer {
  const records = cutRecords(bytes, recordsOf);
  const at = random.below(records.length);
  switch (random.below(5)) {
    case 0:
      records.splice(at, 1);
      break;
    case 1:
      records.splice(random.below(records.length + 1), 0, records[at]!);
      break;
    case 2: {
      const [moved] = records.splice(at, 1);
      records.splice(random.below(records.length + 1), 0, moved!);
      break;
    }
    case 3: {
      const other = others.length > 0 ? random.pick(others) : bytes;
      records.splice(at, random.below(2), random.pick(cutRecords(other, recordsOf)));
      break;
    }
    default:
      records.splice(at, 0, ...Array.from({ length: 1 + random.below(8) }, () => records[at]!));
  }
  return Buffer.concat(records);
}

function cutRecords(bytes: Buffer, recordsOf: (input: Buffer) => number[]): Buffer[] {
  const starts = [0, ...recordsOf(bytes), bytes.length];
  const records: Buffer[] = [];
  for (let at = 1; at < starts.length; at++) records.push(bytes.subarray(starts[at - 1], starts[at]));
  return records;
}

function setNumber(bytes: Buffer, random: Random): Buffer {
  const width = Math.min(random.pick(widths), bytes.length);
  const at = random.below(bytes.length - width + 1);
  const near = random.oneIn(3) ? bytes.length - at - width : random.pick(interesting);
  writeNumber(bytes, at, width, near + random.below(3) - 1, random);
  return bytes;
}

function addToNumber(bytes: Buffer, random: Random): Buffer {
  const width = Math.min(random.pick(widths), bytes.length);
  const at = random.below(bytes.length - width + 1);
  writeNumber(bytes, at, width, bytes.readUIntBE(at, width) + random.below(65) - 32, random);
  return bytes;
}

function writeNumber(bytes: Buffer, at: number, width: number, value: number, random: Random): void {
  const range = 2 ** (8 * width);
  const wrapped = ((value % range) + range) % range;
  if (random.oneIn(3)) bytes.writeUIntLE(wrapped, at, width);
  else bytes.writeUIntBE(wrapped, at, width);
}

/** Mostly short: what decodes is a matter of a few bytes. */
function stretch(bytes: Buffer, random: Random): [from: number, to: number] {
  const from = random.below(bytes.length);
  const length = random.oneIn(4) ? random.below(bytes.length - from) + 1 : 1 + random.below(16);
  return [from, Math.min(bytes.length, from + length)];
}
