import { describe, expect, it } from 'vitest';
import {
  advise,
  be64,
  capabilities,
  configuration,
  contents,
  EOF,
  HEADER,
  memSize,
  page,
  section,
  zero,
} from './bytes.js';
import { cut, decode } from './recorder.js';

describe('the announcement of RAM blocks', () => {
  function announced(...parts: Buffer[]): unknown {
    const stream = Buffer.concat([HEADER, ...parts, EOF]);
    const lists = [1, 3, 8, 1 << 20].map((size) => {
      const events = decode(cut(stream, size));
      expect(events.at(-1)).toEqual(['end']);
      return events.find(([kind]) => kind === 'ramBlocks');
    });
    for (const list of lists) expect(list).toEqual(lists[0]);
    return lists[0]![1];
  }
  const shared = configuration('pc-q35-10.0', capabilities('x-ignore-shared'));
  const huge = be64(0x200000);

  it('has page sizes for the blocks whose host page is not the target page, in any place', () => {
    const list = section('start', memSize(['a', 0x1000], ['b', 0x200000, huge], ['c', 0x1000], ['d', 0x400000, huge]));
    expect(announced(advise(0x201000), list)).toMatchObject([
      { name: 'a', pageSizeBytes: null, gpa: null },
      { name: 'b', pageSizeBytes: 0x200000 },
      { name: 'c', pageSizeBytes: null },
      { name: 'd', pageSizeBytes: 0x200000, index: 3, lengthBytes: 0x400000 },
    ]);
  });

  it('does not take the record after it for a page size', () => {
    const list = memSize(['b', 0x200000, huge], ['a', 0x1000]);
    expect(announced(advise(0x201000), section('start', list))).toMatchObject([{}, { pageSizeBytes: null }]);
    const followed = section('start', list, zero(0, 7, 'a'), page(0, contents(1), 'b'));
    expect(announced(advise(0x201000), followed)).toMatchObject([{}, { pageSizeBytes: null }]);
  });

  it('has addresses with x-ignore-shared, also together with page sizes', () => {
    const blocks = memSize(['a', 0x1000, be64(0)], ['b', 0x200000, huge, be64(0)], ['c', 0x1000, be64(0x200000)]);
    expect(announced(shared, advise(0x201000), section('start', blocks))).toMatchObject([
      { pageSizeBytes: null, gpa: 0 },
      { pageSizeBytes: 0x200000, gpa: 0 },
      { pageSizeBytes: null, gpa: 0x200000 },
    ]);
  });

  it('has neither in a plain pre-copy, nor page sizes when no block has large pages', () => {
    const list = section('start', memSize(['a', 0x1000], ['b', 0x2000]));
    expect(announced(list)).toMatchObject([{ gpa: null }, { pageSizeBytes: null }]);
    expect(announced(advise(), list)).toMatchObject([{ gpa: null }, { pageSizeBytes: null }]);
  });
});
