/** Which process a QMP monitor belongs to: its socket's peer, confirmed by the threads that QEMU itself names. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import koffi from 'koffi';
import { HypervisorError } from './errors.js';

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const connect = libc.func('int connect(int fd, const uint8_t *address, unsigned int length)');
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ unsigned int *length)',
);
const close = libc.func('int close(int fd)');

/** Linux's <sys/socket.h>, on x86 and arm64 alike. */
const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SUN_PATH_BYTES = 108;

/** The pid, in this process's namespace, of who listens on a unix socket; null where that cannot be told. */
export function listenerPid(socketPath: string): number | null {
  const address = Buffer.alloc(2 + SUN_PATH_BYTES);
  if (Buffer.byteLength(socketPath) >= SUN_PATH_BYTES) return null;
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(socketPath, 2);
  const fd = socket(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0) as number;
  if (fd < 0) return null;
  try {
    if ((connect(fd, address, address.length) as number) < 0) return null;
    const credentials = Buffer.alloc(12);
    if ((getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, [credentials.length]) as number) < 0) return null;
    const pid = credentials.readInt32LE(0);
    return pid > 0 ? pid : null;
  } finally {
    close(fd);
  }
}

/** The process that a thread belongs to. */
async function processOfThread(threadId: number): Promise<number | null> {
  const status = await readFile(`/proc/${threadId}/status`, 'utf8').catch(() => '');
  const pid = /^Tgid:\s+(\d+)$/m.exec(status)?.[1];
  return pid === undefined ? null : Number(pid);
}

/**
 * The pid of the QEMU behind a monitor.
 * @param socketPeer who listens on the monitor's socket, if known: a supervisor that handed QEMU the socket is not QEMU
 * @param threadId one of QEMU's own, as `query-cpus-fast` gives it
 * @throws HypervisorError VMMIG_INSPECT when QEMU runs where this process cannot see it
 */
export async function qemuPid(socketPeer: number | null, threadId: number): Promise<number> {
  const owner = await processOfThread(threadId);
  if (owner !== null && owner === socketPeer) return owner;
  // Without the peer's word, a thread of this number might be anyone's: QEMU counts in its own PID namespace.
  const name =
    owner === null
      ? ''
      : basename((await readFile(`/proc/${owner}/cmdline`, 'utf8').catch(() => '')).split('\0')[0] ?? '');
  if (owner !== null && /qemu|kvm/.test(name)) return owner;
  throw new HypervisorError(
    'VMMIG_INSPECT',
    'cannot find the QEMU process behind its monitor: does it run in a container of its own?',
  );
}
