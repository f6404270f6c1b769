/**
 * Whether two hosts see the same disk, told from a handful of its blocks, without moving any of them: one host digests
 * some, the other compares. It is for telling a wrong image before it is used; that each page is right is proven page by
 * page, later.
 */
import { createHash, randomInt } from 'node:crypto';
import type { DiskReader } from './diskReader.js';

export interface DiskSample {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** SHA-256, hexadecimal; null: the block is all zeroes, as most of many disks are, and says nothing. */
  readonly digest: string | null;
}

/** Plain data: it travels between hosts as JSON. */
export interface DiskSamples {
  readonly lengthBytes: number;
  readonly samples: readonly DiskSample[];
}

export interface DiskProof {
  /** `unproven`: neither view has anything but zeroes where it was looked at. */
  readonly verdict: 'same' | 'different' | 'unproven';
  /** Blocks that are not all zeroes in both views. */
  readonly compared: number;
  /**
   * Offsets of those that differ. A block that the guest wrote between the two looks does, too: to be sure, the first
   * view is asked again about just these, and what it says is compared.
   */
  readonly differing: readonly number[];
}

const BLOCK_BYTES = 4096;
const MiB = 1024 * 1024;
/**
 * What tells disks apart stands here, whatever is on them: partition tables, superblocks and volume labels at the start
 * and at the first partition's, ext4's copies of its superblock, the second partition table at the end.
 */
const TELLING_OFFSETS = [0, 64 * 1024, MiB, MiB + 64 * 1024, 128 * MiB, 129 * MiB];
/** As many again are anywhere. */
const RANDOM_SAMPLES = 9;

/**
 * Digests some blocks of a disk.
 * @param offsets - of the blocks; default: where disks differ, and some places at random
 * @throws DiskError
 */
export async function sampleDisk(disk: DiskReader, offsets?: readonly number[]): Promise<DiskSamples> {
  // An image that is opened with its first read has no length before.
  if (disk.lengthBytes === 0) await disk.read(0, 1);
  const { lengthBytes } = disk;
  const chosen = [...new Set(offsets ?? offsetsIn(lengthBytes))].filter((at) => at >= 0 && at < lengthBytes);
  const samples = chosen.map(async (offsetBytes) => {
    const length = Math.min(BLOCK_BYTES, lengthBytes - offsetBytes);
    return { offsetBytes, lengthBytes: length, digest: digestOf(await disk.read(offsetBytes, length)) };
  });
  return { lengthBytes, samples: await Promise.all(samples) };
}

/**
 * Compares a disk with the samples of another view of it.
 * @param mayGrow - it is the file that holds an image, which gets longer while the guest writes
 * @throws DiskError
 */
export async function proveSameDisk(
  disk: DiskReader,
  theirs: DiskSamples,
  { mayGrow = false }: { readonly mayGrow?: boolean } = {},
): Promise<DiskProof> {
  const offsets = theirs.samples.map(({ offsetBytes }) => offsetBytes);
  const ours = await sampleDisk(disk, offsets);
  if (ours.lengthBytes !== theirs.lengthBytes && !mayGrow) return { verdict: 'different', compared: 0, differing: [] };
  const known = new Map(ours.samples.map((sample) => [sample.offsetBytes, sample]));
  const told = theirs.samples.filter(
    ({ offsetBytes, digest }) => digest !== null || known.get(offsetBytes)?.digest !== null,
  );
  const differing = told
    .filter(({ offsetBytes, lengthBytes, digest }) => {
      const own = known.get(offsetBytes);
      return own === undefined || own.digest !== digest || own.lengthBytes !== lengthBytes;
    })
    .map(({ offsetBytes }) => offsetBytes);
  const verdict = differing.length > 0 ? 'different' : told.length > 0 ? 'same' : 'unproven';
  return { verdict, compared: told.length, differing };
}

function offsetsIn(lengthBytes: number): number[] {
  const blocks = Math.floor((lengthBytes - 1) / BLOCK_BYTES) + 1;
  const random = Array.from({ length: RANDOM_SAMPLES }, () => randomInt(blocks) * BLOCK_BYTES);
  return [...TELLING_OFFSETS, (blocks - 1) * BLOCK_BYTES, ...random];
}

function digestOf(block: Buffer): string | null {
  return block.every((byte) => byte === 0) ? null : createHash('sha256').update(block).digest('hex');
}
