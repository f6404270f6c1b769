import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { headForPostcopy } from '../../pager/index.js';
import { encodeConfiguration, type RamBlock, StreamDecoder } from '../../stream/index.js';
import { capture, kinds } from '../stream/corpus.js';
import { scratchDirectory, VERSIONS } from '../stream/guest.js';

const scratch = await scratchDirectory();
afterAll(() => scratch[Symbol.asyncDispose]());

/** The configuration and blocks that a stream begins with. */
function headOf(stream: Buffer): { configuration: Buffer; blocks: readonly RamBlock[] } {
  let configuration = Buffer.alloc(0);
  let blocks: readonly RamBlock[] = [];
  const decoder = new StreamDecoder({
    configuration: (raw) => {
      configuration = Buffer.from(raw);
    },
    ramBlocks: (list) => {
      blocks = list;
    },
    page() {},
    zeroPage() {},
  });
  decoder.feed(stream);
  return { configuration, blocks };
}

describe.each(VERSIONS)('the head of a stream by QEMU %s', (version) => {
  test('that left shared memory out becomes the head of one that did not', async () => {
    const all = kinds(scratch.path);
    const shared = all.find(({ capabilities }) => capabilities?.includes('x-ignore-shared'))!;
    const args = [
      ...['-object', `memory-backend-file,id=m0,size=64M,mem-path=${join(scratch.path, 'own')},share=off`],
      ...['-machine', 'q35,memory-backend=m0', '-m', '64'],
    ];
    const captured = headOf((await capture(version, shared, scratch.path)).stream);
    const ordinary = headOf((await capture(version, { what: 'the same guest', args }, scratch.path)).stream);
    expect(captured.blocks.every(({ gpa }) => gpa !== null)).toBe(true);
    const { head, blocks } = headForPostcopy(captured, () => 4096);
    expect(head.subarray(8).equals(ordinary.configuration)).toBe(true);
    expect(blocks).toEqual(ordinary.blocks);
  });
});

test('other subsections stay, and page sizes are those of the destination', () => {
  const uuid = Buffer.concat([
    Buffer.from([5, 18]),
    Buffer.from('configuration/uuid'),
    Buffer.from([0, 0, 0, 1]),
    Buffer.alloc(16, 9),
  ]);
  const plain = encodeConfiguration('pc-q35-10.0');
  const configuration = Buffer.concat([encodeConfiguration('pc-q35-10.0', ['x-ignore-shared', 'return-path']), uuid]);
  const block = { name: 'm0', index: 0, lengthBytes: 2 ** 21, pageSizeBytes: null, gpa: 0 };
  const { head, blocks } = headForPostcopy({ configuration, blocks: [block] }, () => 2 ** 21);
  expect(head.subarray(8).equals(Buffer.concat([plain, uuid]))).toBe(true);
  expect(blocks).toEqual([{ ...block, gpa: null, pageSizeBytes: 2 ** 21 }]);
});

test('a subsection that is not known is refused', () => {
  const unknown = Buffer.concat([encodeConfiguration('pc'), Buffer.from([5, 1, 0x78, 0, 0, 0, 1, 7])]);
  const refusal = expect.objectContaining({ code: 'VMMIG_MEMORY_FILE_HEAD' });
  expect(() => headForPostcopy({ configuration: unknown, blocks: [] }, () => 4096)).toThrow(refusal);
});
