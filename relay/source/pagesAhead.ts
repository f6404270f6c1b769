/** How far QEMU may be ahead of who reads its stream: so much before its end it may believe to be through. */
import { readFileSync } from 'node:fs';

/** Of a page of zeroes that follows another one. */
const leastPageBytes = 9;
/** `IO_BUF_SIZE` of QEMU's migration/qemu-file.c */
const qemuBufferBytes = 32 * 1024;
const defaultSocketBytes = 212_992;

/** @param readBytes - at a time at most: what comes beyond the point at which to stop is read all the same */
export function pagesAhead(readBytes: number): number {
  return Math.ceil((socketBytes() + qemuBufferBytes + readBytes) / leastPageBytes);
}

/** What the kernel lets a process write into a socket that nobody reads. */
function socketBytes(): number {
  try {
    return Math.max(defaultSocketBytes, Number(readFileSync('/proc/sys/net/core/wmem_default', 'utf8')));
  } catch {
    // Network namespaces need not show it.
    return defaultSocketBytes;
  }
}
