import { beforeEach, describe, expect, test } from 'vitest';
import { BufferPool } from '../../../relay/bufferPool.js';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import { StreamToFrames } from '../../../relay/source/streamToFrames.js';
import type { RamBlock } from '../../../stream/handler.js';

const pageBytes = 4096;
const block = (name: string, index: number): RamBlock => ({
  ...{ name, index, lengthBytes: 16 * pageBytes, pageSizeBytes: null, gpa: null },
});
const blocks = [block('pc.ram', 0), block('vga', 1)] as const;
const contents = Buffer.alloc(pageBytes, 7);

describe('what becomes of a page in the first pass', () => {
  let frames: StreamToFrames;
  const fates = (name: string) => [0, 3, 4, 5, 15].map((page) => frames.fateOf(name, page));

  beforeEach(() => {
    const sink = { ordered() {}, ramEnded() {} };
    const digester = new RunDigester(Buffer.alloc(32));
    const pool = new BufferPool(64 * pageBytes, 4);
    frames = new StreamToFrames(sink, newCounters(), { elide: true, compress: false }, digester, pool);
  });

  const begin = () => {
    frames.ramBlocks(blocks, Buffer.alloc(0));
    frames.close();
  };

  test('before it began: it is sent', () => {
    expect(frames.fateOf('pc.ram', 0)).toBe('sent');
    begin();
    expect(frames.fateOf('pc.ram', 0)).toBe('sent');
  });

  test('where it has been: nothing, whether the page was zero or not', () => {
    begin();
    frames.page(blocks[0], 3, contents, 0);
    expect(fates('pc.ram')).toEqual(['passed', 'passed', 'sent', 'sent', 'sent']);
    frames.zeroPage(blocks[0], 4, 0);
    expect(fates('pc.ram')).toEqual(['passed', 'passed', 'passed', 'sent', 'sent']);
    frames.page(blocks[1], 0, contents, 0);
    expect(fates('pc.ram')).not.toContain('sent');
    expect(fates('vga')).toEqual(['passed', 'sent', 'sent', 'sent', 'sent']);
  });

  test('does not come back when QEMU goes through its memory again', () => {
    begin();
    frames.page(blocks[1], 5, contents, 0);
    frames.page(blocks[0], 0, contents, 0);
    expect(fates('pc.ram')).not.toContain('sent');
    expect(fates('vga')).toEqual(['passed', 'passed', 'passed', 'passed', 'sent']);
  });

  test('is that it comes from the disk, where it is page cache', () => {
    frames.setCacheMap({
      runs: {
        count: 1,
        pfn: Float64Array.of(4),
        pageCount: Uint32Array.of(2),
        disk: Uint16Array.of(0),
        diskOffsetBytes: Float64Array.of(0),
      },
      gpaMap: [{ gpaStart: 0, lengthBytes: 16 * pageBytes, block: 'pc.ram', blockOffset: 0 }],
      diskIndexes: [0],
    });
    begin();
    expect(fates('pc.ram')).toEqual(['sent', 'sent', 'onDisk', 'onDisk', 'sent']);
    expect(fates('vga')).not.toContain('onDisk');
  });

  test('is nothing for a block that QEMU does not send', () => {
    begin();
    expect(frames.fateOf('pc.bios', 0)).toBe('passed');
  });
});
