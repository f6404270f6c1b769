/**
 * The kernel's buffer between this relay and QEMU. Its default (some 200 KB) is used up while Node does something else,
 * and QEMU stands still each time: a larger one lets QEMU load at its own speed.
 */
import type { Socket } from 'node:net';
import koffi from 'koffi';

/** asm-generic/socket.h */
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** Beyond what `net.core.wmem_max` allows everyone; needs CAP_NET_ADMIN. */
const SO_SNDBUFFORCE = 32;

const setsockopt = koffi
  .load(null)
  .func('int setsockopt(int fd, int level, int option, const int *value, unsigned int lengthBytes)');

/** Asks for a buffer of that length; what the kernel does not grant is gone without. */
export function setSendBuffer(socket: Socket, lengthBytes: number): void {
  const { _handle: handle } = socket as unknown as { _handle: { readonly fd: number } | null };
  if (handle === null || handle.fd < 0) return;
  if (setsockopt(handle.fd, SOL_SOCKET, SO_SNDBUFFORCE, [lengthBytes], 4) !== 0)
    setsockopt(handle.fd, SOL_SOCKET, SO_SNDBUF, [lengthBytes], 4);
}
