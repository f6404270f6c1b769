/**
 * The second connection that QEMU expects where libvirt has switched `postcopy-preempt` on (11.3 does, 9.0 does not): QEMU
 * 7.2 reads nothing before it is there. QEMUs send on it what is asked for, past what is not. Here that has its order
 * already, so this one says nothing until the end, when QEMU waits for it to end, too.
 *
 * A QEMU that expects none does not answer, or hangs up: nobody is told.
 */
import { createConnection, type Socket } from 'node:net';
import { RamFlag } from '../../../stream/constants.js';

export class PreemptChannel implements Disposable {
  readonly #socket: Socket;

  /** To be called when the stream itself is connected: QEMU knows them by their order. */
  constructor(path: string) {
    this.#socket = createConnection({ path });
    this.#socket.on('error', () => {});
    this.#socket.resume();
  }

  /** Nothing more will come. */
  end(): void {
    const endOfSection = Buffer.alloc(8);
    endOfSection.writeBigUInt64BE(BigInt(RamFlag.eos));
    this.#socket.write(endOfSection);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
