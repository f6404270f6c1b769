import { totalmem } from 'node:os';
import { expect, test } from 'vitest';
import { parseMemory, requireSameBlocks } from '../../../relay/destination/blocksFrame.js';

const gib = 2 ** 30;
const frameOf = (...lengths: readonly number[]) =>
  Buffer.from(JSON.stringify({ blocks: lengths.map((lengthBytes, at) => ({ name: `ram${at}`, lengthBytes })) }));

test('a guest that this host could never hold is refused before anything is noted of its pages', () => {
  const most = Math.floor(totalmem() / gib) * gib;
  expect(parseMemory(frameOf(most, gib / 4)).blocks).toHaveLength(2);
  expect(() => parseMemory(frameOf(most, most, 2 * gib))).toThrow(/malformed list of blocks/);
  expect(() => parseMemory(frameOf(2 ** 43))).toThrow(/malformed list of blocks/);
});

test('another source relay has to have the same guest', () => {
  const { blocks } = parseMemory(frameOf(gib, 4096));
  expect(() => requireSameBlocks(blocks, blocks)).not.toThrow();
  for (const other of [frameOf(gib), frameOf(gib, 8192), frameOf(gib, 4096, 4096)])
    expect(() => requireSameBlocks(parseMemory(other).blocks, blocks)).toThrow(/another guest/);
});
