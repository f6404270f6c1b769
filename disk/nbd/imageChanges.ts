/** Whether an image has changed since it was opened, told from its file. */
import { stat } from 'node:fs/promises';
import { type DiskImage, isPath } from './image.js';

/**
 * `grown`: it has got clusters that it did not have, so its metadata has changed; `written`: its contents certainly,
 * its metadata perhaps.
 */
export type ImageChange = 'none' | 'written' | 'grown';

/** What tells two states of a file apart; null where there is no file to look at. */
export type ImageStamp = {
  readonly sizeBytes: bigint;
  readonly blocks: bigint;
  readonly modifiedNs: bigint;
} | null;

export async function stampOf({ path }: DiskImage): Promise<ImageStamp> {
  if (!isPath(path)) return null;
  const file = await stat(path, { bigint: true }).catch(() => null);
  // The time of a block device's node says nothing of its contents.
  if (file === null || !file.isFile()) return null;
  return { sizeBytes: file.size, blocks: file.blocks, modifiedNs: file.mtimeNs };
}

/** Raw images have no metadata that could be out of date; of others without a file the worst is supposed. */
export function changeBetween({ format }: DiskImage, then: ImageStamp, now: ImageStamp): ImageChange {
  if (format === 'raw') return 'none';
  if (then === null || now === null) return 'written';
  if (then.sizeBytes !== now.sizeBytes || then.blocks !== now.blocks) return 'grown';
  return then.modifiedNs === now.modifiedNs ? 'none' : 'written';
}
