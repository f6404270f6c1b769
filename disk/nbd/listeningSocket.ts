/** A listening unix socket as a plain descriptor, to hand over to another program. Node's own servers do not give theirs. */
import { chmodSync, closeSync } from 'node:fs';
import koffi from 'koffi';
import { DiskError } from '../errors.js';

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const listen = libc.func('int listen(int fd, int backlog)');

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
/** struct sockaddr_un: the family, and a path with its NUL. */
const PATH_OFFSET = 2;
const ADDRESS_BYTES = PATH_OFFSET + 108;

/**
 * Listens on a new socket that only this user may connect to. What connects waits until somebody accepts.
 * @returns the descriptor, the caller's to close
 * @throws DiskError VMMIG_DISK_OPEN
 */
export function listenOn(path: string): number {
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_UNIX);
  if (Buffer.byteLength(path) >= ADDRESS_BYTES - PATH_OFFSET)
    throw new DiskError('VMMIG_DISK_OPEN', `${path} is too long for the path of a socket`);
  address.write(path, PATH_OFFSET);
  const fd = Number(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) throw failed(path, 'socket');
  try {
    if (Number(bind(fd, address, address.length)) < 0) throw failed(path, 'bind');
    // Before anybody can connect.
    chmodSync(path, 0o600);
    if (Number(listen(fd, 1)) < 0) throw failed(path, 'listen');
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function failed(path: string, call: string): DiskError {
  return new DiskError('VMMIG_DISK_OPEN', `cannot listen on ${path}: ${call} failed with error ${koffi.errno()}`);
}
