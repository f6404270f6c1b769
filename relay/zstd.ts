/**
 * zstd at level 1 into memory that is used again and again: a fresh buffer for every batch costs page faults, and
 * garbage collections that take longer than the compression.
 */
import binding from 'zstd-napi/binding.js';

const level = 1;
const compression = new binding.CCtx();
const decompression = new binding.DCtx();
let scratch = Buffer.alloc(0);

/** @returns the compressed bytes, valid until the next call */
export function compressOnce(raw: Buffer): Buffer {
  const boundBytes = binding.compressBound(raw.length);
  if (scratch.length < boundBytes) scratch = Buffer.allocUnsafeSlow(boundBytes);
  return scratch.subarray(0, compression.compress(scratch, raw, level));
}

/** @returns how many bytes were written to `target`. @throws when they do not fit, or are no zstd frame */
export function decompressInto(target: Buffer, packed: Buffer): number {
  return decompression.decompress(target, packed);
}
