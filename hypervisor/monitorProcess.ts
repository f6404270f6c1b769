/** Which process a QMP monitor belongs to: the owner of a thread that QEMU names, if its socket is there. */
import { readdir, readFile, readlink } from 'node:fs/promises';
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
export async function processOfThread(threadId: number): Promise<number | null> {
  const status = await readFile(`/proc/${threadId}/status`, 'utf8').catch(() => '');
  const pid = /^Tgid:\s+(\d+)$/m.exec(status)?.[1];
  return pid === undefined ? null : Number(pid);
}

/** Whether a process has a socket open that is bound to the path. */
async function holdsSocket(pid: number, socketPath: string): Promise<boolean> {
  const [table, descriptors] = await Promise.all([
    readFile('/proc/net/unix', 'utf8').catch(() => ''),
    readdir(`/proc/${pid}/fd`).catch(() => []),
  ]);
  // Num RefCount Protocol Flags Type St Inode Path
  const rows = table.split('\n').filter((row) => row.endsWith(` ${socketPath}`));
  const sockets = new Set(rows.map((row) => `socket:[${row.split(/\s+/)[6]}]`));
  if (sockets.size === 0) return false;
  const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  return targets.some((target) => sockets.has(target));
}

/**
 * The pid of the QEMU behind a monitor.
 * @param threadId one of QEMU's own, as `query-cpus-fast` gives it: in another PID namespace the number would be someone
 *   else's, so the process has to own the monitor's socket, too
 * @throws HypervisorError VMMIG_INSPECT when QEMU runs where this process cannot see it
 */
export async function qemuPid(qmpPath: string, threadId: number): Promise<number> {
  const owner = await processOfThread(threadId);
  // The peer of a new connection comes second: it would leave QEMU a dead client to greet.
  if (owner !== null && ((await holdsSocket(owner, qmpPath)) || listenerPid(qmpPath) === owner)) return owner;
  const message = `cannot find the QEMU process behind ${qmpPath}: does it run in a container of its own?`;
  throw new HypervisorError('VMMIG_INSPECT', message);
}
