/** Options of sockets that Node.js has no words for. What the kernel does not grant is gone without. */
import type { Socket } from 'node:net';
import koffi from 'koffi';

/** asm-generic/socket.h */
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** Beyond what `net.core.wmem_max` allows everyone; needs CAP_NET_ADMIN. */
const SO_SNDBUFFORCE = 32;
/** linux/tcp.h */
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;

const setsockopt = koffi
  .load(null)
  .func('int setsockopt(int fd, int level, int option, const int *value, unsigned int lengthBytes)');

/**
 * Asks for a buffer of that length between this process and the socket's other end. The default (some 200 KB) is used up
 * while Node does something else, and who reads stands still each time.
 */
export function setSendBuffer(socket: Socket, lengthBytes: number): void {
  const fd = fdOf(socket);
  if (fd !== null) setSendBufferOf(fd, lengthBytes);
}

/** The same for a descriptor. */
export function setSendBufferOf(fd: number, lengthBytes: number): void {
  if (!set(fd, SOL_SOCKET, SO_SNDBUFFORCE, lengthBytes)) set(fd, SOL_SOCKET, SO_SNDBUF, lengthBytes);
}

/** Has the kernel take no more than so much beyond what TCP has sent. */
export function limitUnsent(socket: Socket, lengthBytes: number): void {
  const fd = fdOf(socket);
  if (fd !== null) set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, lengthBytes);
}

function fdOf(socket: Socket): number | null {
  const { _handle: handle } = socket as unknown as { _handle: { readonly fd: number } | null };
  return handle !== null && handle.fd >= 0 ? handle.fd : null;
}

function set(fd: number, level: number, option: number, value: number): boolean {
  return setsockopt(fd, level, option, [value], 4) === 0;
}
