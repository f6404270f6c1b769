/**
 * Memory that is filled at once. Page by page the kernel takes longer to provide it than it takes to write all of it; huge
 * pages it provides 512 at a time. Where it has none to give, or is set to `never`, this is memory like any other.
 */
import koffi from 'koffi';

const hugePageBytes = 2 * 1024 * 1024;
/** asm-generic/mman-common.h */
const MADV_HUGEPAGE = 14;

const madvise = koffi.load(null).func('int madvise(void *address, size_t lengthBytes, int advice)');

/** @param lengthBytes - some MiB at least: up to a huge page more is set aside, though not used */
export function allocateInHugePages(lengthBytes: number): Buffer {
  const raw = Buffer.allocUnsafeSlow(lengthBytes + hugePageBytes);
  const misplacedBytes = Number(koffi.address(raw) & BigInt(hugePageBytes - 1));
  const start = misplacedBytes === 0 ? 0 : hugePageBytes - misplacedBytes;
  const aligned = raw.subarray(start, start + lengthBytes);
  madvise(aligned, lengthBytes, MADV_HUGEPAGE);
  return aligned;
}
