/** The short form of `npm run fuzz`: what was found once, and some inputs of a seed that is told. */
import { describe, expect, test } from 'vitest';
import { readCorpus } from './corpus.js';
import { type Decoder, OracleError } from './decoder.js';
import { decoders } from './decoders/index.js';
import { evaluate, type Finding } from './evaluate.js';
import { fuzz } from './fuzzer.js';
import { minimise } from './minimise.js';
import { Random } from './random.js';

const seed = Number(process.env.VMMIG_FUZZ_SEED ?? 20260101);
const inputs = Number(process.env.VMMIG_FUZZ_INPUTS ?? 2000);

function findings(decoder: Decoder, options: { seed: number; inputs: number; isGuided: boolean }) {
  const found: { input: Buffer; finding: Finding }[] = [];
  const result = fuzz(decoder, { ...options, corpus: [], found: (input, finding) => found.push({ input, finding }) });
  return { ...result, found };
}

/** @throws when nothing is found */
function firstFinding(decoder: Decoder): { input: Buffer; finding: Finding } {
  let first: { input: Buffer; finding: Finding } | null = null;
  const found = (input: Buffer, finding: Finding) => {
    first = { input, finding };
    throw new Error('enough');
  };
  expect(() => fuzz(decoder, { seed: 1, inputs: 10_000, isGuided: false, corpus: [], found })).toThrow('enough');
  return first!;
}

describe.each(decoders.map((decoder) => [decoder.name, decoder] as const))('the decoder %s', (name, decoder) => {
  test('decodes its seeds', () => {
    for (const input of decoder.seeds()) expect(() => decoder.decode([Buffer.from(input)])).not.toThrow();
  });

  test('does what it must with all inputs that were ever a problem', () => {
    for (const { file, bytes } of readCorpus(name))
      for (let cuts = 0; cuts < 20; cuts++)
        expect(evaluate(decoder, bytes, new Random(cuts, name)).finding, file).toBeNull();
  });

  test(`decodes or throws its own error, in no time and little memory (seed ${seed})`, () => {
    const { found, outcomes } = findings(decoder, {
      seed,
      inputs: Math.ceil(inputs / (decoder.cost ?? 1)),
      isGuided: false,
    });
    const shown = found.slice(0, 3).map(({ input, finding }) => [finding, input.toString('base64').slice(0, 2000)]);
    expect(shown).toEqual([]);
    expect(outcomes.size).toBeGreaterThan(0);
  });
});

describe('the fuzzer', () => {
  /** Is wrong for inputs that have a certain word, which it reads letter by letter. */
  const planted = (word: string, wrong: () => void): Decoder => ({
    name: 'planted',
    seeds: () => [Buffer.from('some plain text')],
    decode([bytes]) {
      const text = bytes!.toString('latin1');
      let known = 0;
      while (known < word.length && text.includes(word.slice(0, known + 1))) known++;
      if (known === word.length) wrong();
      if (known > 0) throw new RangeError(`stage ${'x'.repeat(known)}`);
      return { value: text.length };
    },
    isTyped: (error) => error instanceof RangeError,
    isWhole: true,
  });

  test.each<[string, () => void, Finding['kind']]>([
    [
      'throws another error than its own',
      () => {
        throw new TypeError('oops');
      },
      'untyped',
    ],
    [
      'decodes wrongly',
      () => {
        throw new OracleError('wrong');
      },
      'wrong',
    ],
    [
      'takes too long',
      () => {
        for (const before = process.cpuUsage(); process.cpuUsage(before).user < 300_000; );
      },
      'slow',
    ],
  ])(
    'finds a decoder that %s deep inside, and the shortest input that shows it',
    { timeout: 180_000 },
    (_, wrong, kind) => {
      const decoder = planted('\x07x', wrong);
      const { input, finding } = firstFinding(decoder);
      expect(finding.kind).toBe(kind);
      if (kind !== 'slow') expect(minimise(decoder, input, finding).toString()).toBe('\x07x');
    },
  );

  test('finds a decoder that minds how its input is cut up, or keeps what it was fed with', () => {
    const chunky: Decoder = {
      name: 'chunky',
      seeds: () => [Buffer.from('abcdefgh')],
      decode: (chunks) => ({ value: chunks.filter(({ length }) => length > 0).length > 1 ? 'cut' : 'whole' }),
      isTyped: () => false,
    };
    expect(firstFinding(chunky).finding.kind).toBe('wrong');
  });

  test('finds a decoder that takes more memory than its input is worth', () => {
    const kept: Buffer[] = [];
    const greedy: Decoder = {
      name: 'greedy',
      seeds: () => [Buffer.from('abcdefgh')],
      decode([bytes]) {
        kept[0] = Buffer.alloc(bytes![0] === 0x61 ? 10 : 64 * 2 ** 20);
        return { value: null };
      },
      isTyped: () => false,
      isWhole: true,
    };
    expect(firstFinding(greedy).finding.kind).toBe('memory');
  });

  test('goes the same way for the same seed, and is led by the code that is reached', () => {
    const decoder = decoders.find(({ name }) => name === 'batch')!;
    const once = findings(decoder, { seed: 5, inputs: 3000, isGuided: true });
    const again = findings(decoder, { seed: 5, inputs: 3000, isGuided: true });
    expect([...once.outcomes]).toEqual([...again.outcomes]);
    expect(once.blocks).toBeGreaterThan(5);
  });
});
