import { expect, test } from 'vitest';
import { CaptureBlock, groupPages, HintPass } from '../../pager/index.js';
import { BatchBuilder, decodeBatch } from '../../relay/link/batch.js';
import { pageBytes, pageOf, TestMemory } from './memory.js';

const pages = [200, 100];
const unlimited = 2 ** 30;

/** Every other group has pages. The last one of each block is not whole. */
async function guest() {
  const memory = await TestMemory.create(pages);
  for (const [block, count] of pages.entries())
    for (let page = 0; page < count; page++)
      if (Math.floor(page / groupPages) % 2 === 0) memory.write(block, page, pageOf(page, 1));
  const blocks = memory.blocks.map((block) => new CaptureBlock(block));
  for (const block of blocks) await block.survey();
  return { memory, blocks, [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose]() };
}

/** Groups in the order in which they come, until all have been visited. */
function visited(pass: HintPass): string[] {
  const builder = new BatchBuilder();
  const order: string[] = [];
  while (!pass.isOver) {
    if (pass.fill(builder, groupPages) === 0) continue;
    const { records } = decodeBatch(builder.take(false), pages);
    order.push(...records.map(({ block, page, count }) => `${block}/${page}+${count}`));
  }
  return order;
}

const ofFirst = ['0/0+16', '0/32+16', '0/64+16', '0/96+16', '0/128+16', '0/160+16', '0/192+8'];
const ofSecond = ['1/0+16', '1/32+16', '1/64+16', '1/96+4'];

test('a pass goes through each group once, from the beginning', async () => {
  await using one = await guest();
  const pass = new HintPass(one.blocks, () => {}, { limitBytes: unlimited });
  expect(visited(pass)).toEqual([...ofFirst, ...ofSecond]);
});

test('a pass that goes backwards visits the same groups, each once, from the end of each block', async () => {
  await using one = await guest();
  const pass = new HintPass(one.blocks, () => {}, { limitBytes: unlimited, isBackwards: true });
  expect(visited(pass)).toEqual([...ofFirst.toReversed(), ...ofSecond.toReversed()]);
  expect(pass.fill(new BatchBuilder(), groupPages)).toBe(0);
});

test('a pass that goes backwards keeps to its limit, and leaves out the beginning', async () => {
  await using one = await guest();
  const pass = new HintPass(one.blocks, () => {}, { limitBytes: 24 * pageBytes, isBackwards: true });
  expect(visited(pass)).toEqual(['0/192+8', '0/160+16']);
});

test('a pass that begins again backwards finds what has changed in any group', async () => {
  await using one = await guest();
  const { memory, blocks } = one;
  const changed: string[] = [];
  const note = (block: CaptureBlock, group: number) => void changed.push(`${block.index}/${group}`);
  const pass = new HintPass(blocks, note, { limitBytes: unlimited, isBackwards: true });
  visited(pass);
  for (const page of [0, 70, 199]) memory.write(0, page, pageOf(page, 2));
  pass.restart();
  expect(visited(pass)).toEqual(['0/192+8', '0/64+16', '0/0+16']);
  expect(changed).toEqual(['0/12', '0/4', '0/0']);
});
