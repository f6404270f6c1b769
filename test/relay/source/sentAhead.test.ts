import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { BatchBuilder, decodeBatch } from '../../../relay/link/batch.js';
import { type ReadableMemory, SentAhead } from '../../../relay/source/sentAhead.js';
import type { RamBlock } from '../../../stream/handler.js';
import { pageBytes, pageOf, TestMemory } from '../../pager/memory.js';
import { RelayRig } from '../rig.js';

const never = new AbortController().signal;
const pagesOfBlock = [32, 40, 64];
const names = ['pc.ram', 'pc.bios', 'vga'];
const blocks: RamBlock[] = names.map((name, index) => ({
  ...{ name, index, lengthBytes: pagesOfBlock[index]! * pageBytes, pageSizeBytes: null, gpa: null },
}));

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

/** These pages, of which some have changed. */
function contentsOf(pages: readonly number[], changed: readonly number[] = []): Buffer {
  return Buffer.concat(pages.map((page) => pageOf(page, changed.includes(page) ? 2 : 1)));
}

/** First page, end and whether it is held, of each stretch. */
type Stretches = [from: number, to: number, isHeld: boolean][];

describe('of a guest of three blocks, one of which is not read', () => {
  let memory: TestMemory;
  let readable: ReadableMemory;
  let ahead: SentAhead;

  beforeEach(async () => {
    memory = await TestMemory.create([pagesOfBlock[0]!, null, pagesOfBlock[2]!]);
    onTestFinished(() => memory[Symbol.asyncDispose]());
    for (const page of range(0, 32)) memory.write(0, page, pageOf(page, 1));
    for (const page of [...range(3, 9), ...range(12, 14), ...range(20, 40)]) memory.write(2, page, pageOf(page, 1));
    const places = blocks.map(({ name, lengthBytes, index }) => {
      const found = memory.blocks.find(({ block }) => block === index);
      return {
        name,
        lengthBytes,
        place: found === undefined ? null : { file: found.file, fileOffset: found.fileOffset },
      };
    });
    readable = { blocks: places, limitBytes: 2 ** 20 };
    ahead = new SentAhead(readable);
  });

  /** All that is sent, as block, page and number of pages. */
  function sent(): string[] {
    const builder = new BatchBuilder();
    const runs: string[] = [];
    while (!ahead.isOver && !ahead.isWaiting) {
      if (ahead.fill(builder, 16) === 0) continue;
      const { records, pages } = decodeBatch(builder.take(false), pagesOfBlock);
      runs.push(...records.map(({ block, page, count }) => `${block}/${page}+${count}`));
      const numbers = records.flatMap(({ page, count }) => range(page, page + count));
      expect(pages.equals(Buffer.concat(numbers.map((page) => pageOf(page, 1))))).toBe(true);
    }
    return runs;
  }

  test('what has ever been written to is sent, of each group the most that lies together, and each block from its end', async () => {
    await ahead.survey(never);
    expect(sent()).toEqual(['0/16+16', '0/0+16', '2/32+8', '2/20+12', '2/3+6']);
  });

  test('page cache is left out, in each block what is its own', async () => {
    const map = RelayRig.map([
      [8, 16, 0],
      [1032, 4, 0],
    ]);
    const gpaMap = [
      { gpaStart: 0, lengthBytes: 1000 * pageBytes, block: 'pc.ram', blockOffset: 0 },
      { gpaStart: 1000 * pageBytes, lengthBytes: 64 * pageBytes, block: 'vga', blockOffset: 0 },
    ];
    await ahead.survey(never);
    ahead.know({ ...map, gpaMap });
    expect(sent()).toEqual(['0/24+8', '0/0+8', '2/36+4', '2/20+12', '2/3+6']);
  });

  describe('when it is not known yet what is page cache', () => {
    const stretch = (block: string, page: number, count: number) => ({
      ...{ block, offset: page * pageBytes, lengthBytes: count * pageBytes },
    });

    beforeEach(async () => {
      ahead = new SentAhead(readable, { awaitsCache: true });
      await ahead.survey(never);
    });

    test('no more is sent than what is favoured, in its order, before that is known', () => {
      expect(sent()).toEqual([]);
      ahead.favour([stretch('vga', 22, 1), stretch('pc.bios', 0, 4), stretch('pc.ram', 3, 2), stretch('rom', 0, 9)]);
      expect(sent()).toEqual(['2/20+12', '0/0+16']);
      expect(ahead.isOver).toBe(false);
      ahead.know(null);
      expect(sent()).toEqual(['0/16+16', '2/32+8', '2/3+6']);
      expect(ahead.isOver).toBe(true);
    });

    test('what the stream has passed is not sent, and of the rest what is favoured', () => {
      ahead.know(null);
      ahead.passed(0, 20);
      expect(sent()).toEqual([]);
      ahead.favour([stretch('pc.ram', 3, 1), stretch('pc.ram', 17, 1), stretch('vga', 22, 1)]);
      expect(sent()).toEqual(['2/20+12']);
      ahead.passed(2, 19);
      ahead.passed(0, 0);
      ahead.favour([stretch('pc.ram', 17, 1), stretch('vga', 4, 1), stretch('vga', 18, 2), stretch('vga', 33, 1)]);
      expect(sent()).toEqual(['2/32+8']);
    });
  });

  test('a page is found where it was sent, and nowhere else', async () => {
    await ahead.survey(never);
    expect(ahead.find(0, 3)).toBe(false);
    sent();
    const found = names.map((_, block) => range(0, pagesOfBlock[block]!).filter((page) => ahead.find(block, page)));
    expect(found).toEqual([range(0, 32), [], [...range(3, 9), ...range(20, 40)]]);
    expect(ahead.find(7, 0)).toBe(false);
  });

  test('pages that were sent together are of one run, and those beside them of another', async () => {
    await ahead.survey(never);
    sent();
    const runOf = (page: number) => (ahead.find(2, page) ? ahead.run : null);
    expect([20, 31].map(runOf)).toEqual([runOf(25), runOf(25)]);
    expect(runOf(32)).not.toBe(runOf(31));
  });

  function take(block: number, page: number, bytes: Buffer): Stretches {
    const stretches = ahead.take(block, page, bytes.length / pageBytes, bytes);
    return stretches.map(({ from, to, isHeld }) => [from, to, isHeld]);
  }

  test.each<[string, number, Buffer, Stretches, number[]]>([
    ['all that were sent together, as they were', 20, contentsOf(range(20, 32)), [[0, 12, true]], []],
    ['with other contents', 20, contentsOf(range(21, 33)), [[0, 12, false]], []],
    ['without the first', 21, contentsOf(range(21, 32)), [[0, 11, true]], []],
    ['without the last', 20, contentsOf(range(20, 31)), [[0, 11, true]], [31]],
    ['some among them', 23, contentsOf(range(23, 27)), [[0, 4, true]], range(27, 32)],
    [
      'with another first',
      20,
      contentsOf(range(20, 32), [20]),
      [
        [0, 1, false],
        [1, 12, true],
      ],
      [],
    ],
    [
      'with another last',
      20,
      contentsOf(range(20, 32), [31]),
      [
        [0, 11, true],
        [11, 12, false],
      ],
      [],
    ],
    [
      'with others among them',
      20,
      contentsOf(range(20, 32), [22, 23, 27]),
      [
        [0, 2, true],
        [2, 4, false],
        [4, 7, true],
        [7, 8, false],
        [8, 12, true],
      ],
      [],
    ],
    [
      'and before them others of their group, which were not sent',
      18,
      contentsOf(range(18, 32)),
      [
        [0, 2, false],
        [2, 14, true],
      ],
      [],
    ],
  ])('pages are held one by one, and not found again: %s', async (_, page, bytes, stretches, left) => {
    await ahead.survey(never);
    sent();
    expect(take(2, page, bytes)).toEqual(stretches);
    const found = range(0, 64).filter((at) => ahead.find(2, at));
    expect(found).toEqual([...range(3, 9), ...left, ...range(32, 40)]);
    expect(take(2, page, bytes)).toEqual([[0, bytes.length / pageBytes, false]]);
    expect(range(0, 32).filter((at) => !ahead.find(0, at))).toEqual([]);
  });

  test('pages are not held in another block than they were sent in', async () => {
    await ahead.survey(never);
    sent();
    expect(take(0, 16, contentsOf(range(20, 32)))).toEqual([[0, 12, false]]);
    expect(range(0, 32).filter((at) => ahead.find(0, at))).toEqual([...range(0, 16), ...range(28, 32)]);
    expect(take(2, 20, contentsOf(range(20, 32)))).toEqual([[0, 12, true]]);
  });

  test('pages that were sent together are held part by part, in the order of the stream', async () => {
    await ahead.survey(never);
    sent();
    expect(take(2, 20, contentsOf(range(20, 24)))).toEqual([[0, 4, true]]);
    expect(take(2, 25, contentsOf(range(25, 28), [26]))).toEqual([
      [0, 1, true],
      [1, 2, false],
      [2, 3, true],
    ]);
    // It has been passed by.
    expect(ahead.find(2, 24)).toBe(false);
    expect(take(2, 28, contentsOf(range(28, 32)))).toEqual([[0, 4, true]]);
  });

  test('it is of a stream with these blocks, in this order', () => {
    expect(ahead.isOf(blocks)).toBe(true);
    expect(ahead.isOf(blocks.slice(0, 2))).toBe(false);
    expect(ahead.isOf([...blocks, blocks[0]!])).toBe(false);
    expect(ahead.isOf(blocks.toReversed())).toBe(false);
    expect(ahead.isOf(blocks.with(1, { ...blocks[1]!, name: 'pc.rom' }))).toBe(false);
    expect(ahead.isOf(blocks.with(2, { ...blocks[2]!, lengthBytes: pageBytes }))).toBe(false);
  });
});
