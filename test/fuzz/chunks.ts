/** Ways to cut an input up: a decoder may not care, and may not keep what it was fed with. */
import type { Random } from './random.js';

/** Up to this length an input comes byte by byte now and then. */
const maxSingleBytes = 3000;

/** In this process's own memory, so that it can be written over once it was fed. */
export function cut(input: Buffer, random: Random): Buffer[] {
  const style = random.below(6);
  if (style === 0) return [Buffer.from(input)];
  if (style === 1 && input.length <= maxSingleBytes) return cutEvery(input, 1);
  if (style === 2) {
    const at = random.below(input.length + 1);
    return [Buffer.from(input.subarray(0, at)), Buffer.from(input.subarray(at))];
  }
  const longest = style === 3 ? 20 : 6000;
  const chunks: Buffer[] = [];
  for (let at = 0; at < input.length; ) {
    const length = random.below(longest);
    chunks.push(Buffer.from(input.subarray(at, at + length)));
    at += length;
  }
  return chunks;
}

export function cutEvery(input: Buffer, lengthBytes: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < input.length; at += lengthBytes) chunks.push(Buffer.from(input.subarray(at, at + lengthBytes)));
  return chunks;
}
