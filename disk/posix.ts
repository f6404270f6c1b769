/**
 * The system calls that Node does not offer and reading a disk needs. Linux only.
 */
import koffi from 'koffi';

const libc = koffi.load(null);
const lseek = libc.func('int64_t lseek64(int fd, int64_t offset, int whence)');
const posixFadvise = libc.func('int posix_fadvise64(int fd, int64_t offset, int64_t length, int advice)');

const SEEK_END = 2;

/** `posix_fadvise` advices (Linux's include/uapi/linux/fadvise.h). */
export const ADVICE_RANDOM = 1;
export const ADVICE_DONTNEED = 4;

/** Length of a file or block device in bytes (`fstat` says 0 for the latter); -1 where it has none. */
export function sizeOf(fd: number): number {
  return Number(lseek(fd, 0, SEEK_END));
}

/** Runs on a worker thread: dropping pages can wait for storage. Failure is of no consequence: it is advice. */
export function adviseFile(fd: number, offsetBytes: number, lengthBytes: number, advice: number): Promise<void> {
  return new Promise((resolve) => {
    posixFadvise.async(fd, offsetBytes, lengthBytes, advice, () => resolve());
  });
}

/** A buffer whose first byte's address is a multiple of `alignBytes` (a power of two), as O_DIRECT requires. */
export function alignedBuffer(lengthBytes: number, alignBytes: number): Buffer {
  const raw = Buffer.allocUnsafeSlow(lengthBytes + alignBytes);
  const misplaced = Number(koffi.address(raw) & BigInt(alignBytes - 1));
  const start = misplaced === 0 ? 0 : alignBytes - misplaced;
  return raw.subarray(start, start + lengthBytes);
}
