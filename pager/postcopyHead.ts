/**
 * What a stream that was captured with `x-ignore-shared` has to begin with for a destination that is fed by post-copy, and
 * so does without that capability:
 *
 *     QEVM  version  configuration          without its subsection `configuration/capabilities`: a destination refuses a
 *                                           stream whose capabilities are not its own
 *     … MEM_SIZE  (name, length, [page size])*   without guest physical addresses; with the destination's own page size
 *                                           where it is not the guest's
 */
import { PAGE_BYTES, type RamBlock, SectionType, StreamEncoder } from '../stream/index.js';
import { PagerError } from './errors.js';

export interface PostcopyHead {
  /** Header and configuration. */
  readonly head: Buffer;
  /** For the MEM_SIZE record, in the same order. */
  readonly blocks: readonly RamBlock[];
}

/**
 * @param source what the decoder told of the captured stream: `configuration` as it is, and `ramBlocks`
 * @param pageSizeAtDestination of the memory that the destination's QEMU keeps a block in (`info ramblock`)
 * @throws PagerError VMMIG_MEMORY_FILE_HEAD
 */
export function headForPostcopy(
  source: { readonly configuration: Buffer; readonly blocks: readonly RamBlock[] },
  pageSizeAtDestination: (block: string) => number,
): PostcopyHead {
  const encoder = new StreamEncoder();
  encoder.header();
  encoder.configuration(withoutCapabilities(source.configuration));
  const blocks = source.blocks.map((block) => {
    const pageSizeBytes = pageSizeAtDestination(block.name);
    return { ...block, gpa: null, pageSizeBytes: pageSizeBytes === PAGE_BYTES ? null : pageSizeBytes };
  });
  return { head: encoder.take(), blocks };
}

/** Lengths of the subsections that have one; `configuration/capabilities` says its own. */
const bodyBytes: Readonly<Record<string, number>> = {
  'configuration/target-page-bits': 4,
  'configuration/uuid': 16,
};

function withoutCapabilities(raw: Buffer): Buffer {
  const kept: Buffer[] = [];
  let at = 5 + raw.readUInt32BE(1);
  kept.push(raw.subarray(0, at));
  while (at < raw.length) {
    const nameEnd = at + 2 + raw[at + 1]!;
    const name = raw.toString('latin1', at + 2, nameEnd);
    const body = nameEnd + 4;
    if (name === 'configuration/capabilities') {
      const count = raw.readUInt32BE(body);
      at = body + 4;
      for (let capability = 0; capability < count; capability++) at += 1 + raw[at]!;
      continue;
    }
    const end = body + (bodyBytes[name] ?? Number.NaN);
    if (raw[at] !== SectionType.subsection || !(end <= raw.length))
      throw new PagerError('VMMIG_MEMORY_FILE_HEAD', `unknown configuration subsection ${JSON.stringify(name)}`);
    kept.push(raw.subarray(at, end));
    at = end;
  }
  return Buffer.concat(kept);
}
