import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { describe, expect, it } from 'vitest';
import { allocateInHugePages } from '../../relay/hugePages.js';

const mebibyte = 2 ** 20;
const isOff = readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').includes('[never]');

/** Of the mapping that holds the address, as the kernel tells it. */
function hugeKib(address: bigint): number {
  const mappings = readFileSync('/proc/self/smaps', 'latin1').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const holding = mappings.find((each) => {
    const [from, to] = /^([0-9a-f]+)-([0-9a-f]+)/
      .exec(each)!
      .slice(1)
      .map((hex) => BigInt(`0x${hex}`));
    return from! <= address && address < to!;
  });
  return Number(/^AnonHugePages:\s+(\d+) kB$/m.exec(holding!)![1]);
}

describe('memory in huge pages', () => {
  it('is as long as it was asked for, and its own', () => {
    const [one, other] = [allocateInHugePages(16 * mebibyte), allocateInHugePages(16 * mebibyte)];
    one.fill(1);
    other.fill(2);
    expect(one).toHaveLength(16 * mebibyte);
    expect(one.every((byte) => byte === 1)).toBe(true);
  });

  it('is in huge pages once it is written, where the kernel has them', () => {
    const bytes = allocateInHugePages(16 * mebibyte);
    bytes.fill(1);
    expect(hugeKib(koffi.address(bytes))).toBeGreaterThanOrEqual(isOff ? 0 : 8 * 1024);
  });
});
