/**
 * How a conversation with libvirt's daemon begins: `virsh` makes six calls, one after the other, and every daemon gives the
 * same answers to somebody who may use its socket. Between two hosts each of them takes a round trip. So the destination's
 * end asks its daemon beforehand, the source's tells virsh what that has said, and what the daemon answers virsh itself
 * has to be the same.
 */
import { createConnection } from 'node:net';
import {
  encodeCall,
  encodeReply,
  type RemoteMessage,
  RemoteMessages,
  RemoteProtocolError,
  remoteProcedure,
} from '../../hypervisor/index.js';

const { authList, supportsFeature, open } = remoteProcedure;
const yes = Buffer.from([0, 0, 0, 1]);
/** One way to log in: none. */
const none = Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]);
/** That the system's QEMUs are meant, to be changed, too. */
const system = Buffer.concat([
  Buffer.from([0, 0, 0, 1, 0, 0, 0, 14]),
  Buffer.from('qemu:///system\0\0'),
  Buffer.from([0, 0, 0, 0]),
]);
/** VIR_DRV_FEATURE_…: keepalive; then migration with parameters, events by callback, and that clients are missed. */
const feature = (number: number) => Buffer.from([0, 0, 0, number]);

interface Exchange {
  readonly procedure: number;
  readonly asked: Buffer;
  readonly answered: Buffer;
}

const exchanges: readonly Exchange[] = [
  { procedure: authList, asked: Buffer.alloc(0), answered: none },
  { procedure: supportsFeature, asked: feature(10), answered: yes },
  { procedure: open, asked: system, answered: Buffer.alloc(0) },
  { procedure: supportsFeature, asked: feature(14), answered: yes },
  { procedure: supportsFeature, asked: feature(15), answered: yes },
  { procedure: supportsFeature, asked: feature(13), answered: yes },
];
const timeoutMs = 1_000;

/** @returns whether a daemon answers as all do; if not, there is nothing to be told beforehand */
export async function opensAsUsual(daemonPath: string): Promise<boolean> {
  const socket = createConnection({ path: daemonPath });
  socket.setTimeout(timeoutMs, () => socket.destroy());
  const chunks: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
  try {
    const messages = new RemoteMessages();
    for (const [serial, { procedure, asked, answered }] of exchanges.entries()) {
      socket.write(encodeCall(procedure, serial, asked));
      let said: RemoteMessage[] = [];
      while (said.length === 0) {
        const { value, done } = await chunks.next();
        if (done) return false;
        said = messages.feed(value);
      }
      const [answer] = said;
      if (answer?.kind !== 'answer' || !answer.isOk || !answer.payload.equals(answered)) return false;
    }
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

function exchangeOf({ kind, procedure, payload }: RemoteMessage): Exchange | undefined {
  if (kind !== 'call') return undefined;
  return exchanges.find((known) => known.procedure === procedure && known.asked.equals(payload));
}

/** At the source's end. */
export class AnsweredOpening {
  /** What virsh was told, by the serial of its call. */
  readonly #told = new Map<number, Buffer>();

  /** @returns what virsh is told at once; null: the daemon is to say */
  answer(call: RemoteMessage): Buffer | null {
    const known = exchangeOf(call);
    if (known === undefined) return null;
    const answer = encodeReply(call, known.answered);
    this.#told.set(call.serial, answer);
    return answer;
  }

  /** @returns whether virsh knows. @throws RemoteProtocolError when it was told something else */
  hasTold(message: RemoteMessage): boolean {
    const told = message.kind === 'answer' ? this.#told.get(message.serial) : undefined;
    if (told === undefined) return false;
    this.#told.delete(message.serial);
    if (!told.equals(message.raw)) throw new RemoteProtocolError('the daemon does not answer as it did a moment ago');
    return true;
  }
}

/** At the destination's end: a daemon that has not answered yet who one is takes nothing else. */
export class PacedOpening {
  readonly #send: (raw: Buffer) => void;
  readonly #waiting: RemoteMessage[] = [];
  /** The serial of a call without whose answer none follows. */
  #awaited: number | null = null;

  /** @param send - to the daemon */
  constructor(send: (raw: Buffer) => void) {
    this.#send = send;
  }

  /** What virsh says. */
  call(message: RemoteMessage): void {
    this.#waiting.push(message);
    this.#sendOn();
  }

  /** What the daemon says. */
  heard({ kind, serial }: RemoteMessage): void {
    if (kind !== 'answer' || serial !== this.#awaited) return;
    this.#awaited = null;
    this.#sendOn();
  }

  #sendOn(): void {
    while (this.#awaited === null) {
      const message = this.#waiting.shift();
      if (message === undefined) return;
      if (exchangeOf(message) !== undefined) this.#awaited = message.serial;
      this.#send(message.raw);
    }
  }
}
