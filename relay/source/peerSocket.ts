/**
 * QEMU's end of the socket into which it migrates. What a local socket takes before its writer has to wait is the writer's to
 * say, 200 KiB unless it does, and QEMU does not: whatever else the processors do, both ends then take turns for each
 * 200 KiB. So the descriptor is borrowed from QEMU (pidfd_getfd(2), since Linux 5.6), which changes nothing that QEMU
 * could notice.
 */
import { closeSync, readdirSync } from 'node:fs';
import koffi from 'koffi';
import { setSendBufferOf } from '../socketOptions.js';

/** The same on every architecture that Node.js runs on (asm-generic/unistd.h). */
const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;

const libc = koffi.load(null);
const syscall = libc.func('long syscall(long number, long first, long second, long third)');
const getpeername = libc.func('int getpeername(int fd, void *address, _Inout_ unsigned int *lengthBytes)');

/** The family comes before the path in a `sockaddr_un`. */
const pathStart = 2;

/**
 * Asks for a buffer of that length behind every socket that a process has connected to a path. Who may not look into the
 * process, or has another kernel, goes without.
 */
export function widenPeerSocket(pid: number, socketPath: string, lengthBytes: number): void {
  const pidfd = Number(syscall(SYS_pidfd_open, pid, 0, 0));
  if (pidfd < 0) return;
  try {
    for (const name of descriptorsOf(pid)) {
      const fd = Number(syscall(SYS_pidfd_getfd, pidfd, Number(name), 0));
      if (fd < 0) continue;
      if (peerPath(fd) === socketPath) setSendBufferOf(fd, lengthBytes);
      closeSync(fd);
    }
  } finally {
    closeSync(pidfd);
  }
}

function descriptorsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`);
  } catch {
    return [];
  }
}

/** Null for what is no connected socket. */
function peerPath(fd: number): string | null {
  const address = Buffer.alloc(128);
  const lengthBytes = [address.length];
  if (getpeername(fd, address, lengthBytes) !== 0) return null;
  const path = address.subarray(pathStart, lengthBytes[0]);
  const end = path.indexOf(0);
  return path.toString('utf8', 0, end < 0 ? path.length : end);
}
