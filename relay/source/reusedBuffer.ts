/**
 * Reading a connection into one buffer, used again and again. A fresh 64 KiB for every read, as sockets do it, costs
 * as much time in the garbage collector as the whole stream does in the decoder.
 *
 * Node offers this (`onread`) for sockets that it makes itself, not for those a server accepted: so the accepted
 * one's handle is given to a new socket.
 */
import { Socket } from 'node:net';

export const defaultReadBytes = 256 * 1024;

interface WithHandle {
  _handle: object | null;
}

/**
 * @param accepted - from a server with `pauseOnConnect`; not to be used any more
 * @param onBytes - gets bytes that are valid only during the call; false pauses the socket until its `resume()`
 * @param bufferBytes - so many come at a time at most
 * @returns the socket to use instead
 */
export function readIntoOneBuffer(
  accepted: Socket,
  onBytes: (bytes: Buffer) => boolean,
  bufferBytes = defaultReadBytes,
): Socket {
  const holder = accepted as unknown as WithHandle;
  const handle = holder._handle;
  holder._handle = null;
  const options = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: Buffer.allocUnsafeSlow(bufferBytes),
      callback: (lengthBytes: number, buffer: Uint8Array) => onBytes((buffer as Buffer).subarray(0, lengthBytes)),
    },
  };
  const socket = new Socket(options as ConstructorParameters<typeof Socket>[0]);
  socket.resume();
  socket.read(0);
  return socket;
}
