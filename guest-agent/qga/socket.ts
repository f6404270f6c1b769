/**
 * qemu-guest-agent behind the unix socket of QEMU's chardev. QEMU lets one client in at a time and leaves others waiting
 * unheard, so the socket is let go whenever nothing was asked for a while. Who holds it (libvirt does, for its guests)
 * cannot be told from an agent that does not run: both are silence.
 */
import { randomInt } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { createDeferred } from '../deferred.js';
import { AgentError } from '../errors.js';
import { QgaReplies, type QgaReply } from './replies.js';
import { MAX_REQUEST_BYTES, type QgaLimits, type QgaTransport } from './transport.js';

/** Others may want to speak to the guest, too. */
const IDLE_MS = 1_000;

interface Waiting {
  resolve(reply: QgaReply): void;
  reject(error: unknown): void;
}

export class QgaSocket implements QgaTransport {
  readonly #path: string;
  #socket: Socket | null = null;
  /** What is sent next is answered next. */
  #isInSync = false;
  #waiting: Waiting | null = null;
  #last: Promise<unknown> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param path - of the host's end of the port org.qemu.guest_agent.0; it is opened when it is needed */
  constructor(path: string) {
    this.#path = path;
  }

  async execute(command: string, args: Readonly<Record<string, unknown>>, limits: QgaLimits): Promise<unknown> {
    const { signal, timeoutMs } = limits;
    const request = JSON.stringify({ execute: command, arguments: args });
    if (request.length > MAX_REQUEST_BYTES) throw new RangeError(`a request of ${request.length} bytes`);
    signal?.throwIfAborted();
    const { promise: interrupted, reject } = createDeferred<never>();
    const silence = `qemu-guest-agent did not answer within ${timeoutMs} ms`;
    const deadline = setTimeout(() => reject(new AgentError('VMMIG_AGENT_TIMEOUT', silence)), timeoutMs);
    const aborted = () => reject(signal?.reason);
    signal?.addEventListener('abort', aborted, { once: true });
    const before = this.#last;
    const turn = Promise.race([before, interrupted]).then(() => this.#converse(request, interrupted));
    this.#last = Promise.allSettled([before, turn]);
    try {
      return await turn;
    } finally {
      clearTimeout(deadline);
      signal?.removeEventListener('abort', aborted);
    }
  }

  async #converse(request: string, interrupted: Promise<never>): Promise<unknown> {
    clearTimeout(this.#idle);
    if (this.#isClosed) throw closed();
    let reply: QgaReply;
    try {
      if (!this.#isInSync) await this.#synchronise(interrupted);
      reply = await this.#ask(Buffer.from(`${request}\n`), interrupted);
    } catch (error) {
      // What is still on its way is dropped by the next one's sync.
      this.#disconnect();
      throw error;
    }
    this.#idle = setTimeout(() => this.#disconnect(), IDLE_MS);
    if ('error' in reply) throw new AgentError('VMMIG_AGENT_COMMAND', `qemu-guest-agent says: ${reply.error}`);
    return reply.value;
  }

  /** 0xFF makes the guest forget the beginning of a command that somebody did not finish. */
  async #synchronise(interrupted: Promise<never>): Promise<void> {
    const id = randomInt(1, 2 ** 47);
    const replies = new QgaReplies();
    replies.awaitSync(id);
    this.#connect(replies);
    const sync = JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } });
    await this.#ask(Buffer.concat([Buffer.of(0xff), Buffer.from(`${sync}\n`)]), interrupted);
    this.#isInSync = true;
  }

  async #ask(request: Buffer, interrupted: Promise<never>): Promise<QgaReply> {
    const { promise, resolve, reject } = createDeferred<QgaReply>();
    this.#waiting = { resolve, reject };
    this.#socket?.write(request);
    return await Promise.race([promise, interrupted]);
  }

  #connect(replies: QgaReplies): void {
    const socket = createConnection({ path: this.#path });
    this.#socket = socket;
    const fail = (error: AgentError) => {
      if (this.#socket !== socket) return;
      const waiting = this.#waiting;
      this.#disconnect();
      waiting?.reject(error);
    };
    socket.on('data', (bytes: Buffer) => {
      try {
        replies.feed(bytes, (reply) => this.#receive(socket, reply));
      } catch (thrown) {
        if (!(thrown instanceof AgentError)) throw thrown;
        fail(thrown);
      }
    });
    socket.on('error', (cause) => {
      const message = `qemu-guest-agent's socket cannot be used: ${cause.message}`;
      fail(new AgentError('VMMIG_AGENT_UNAVAILABLE', message, { cause }));
    });
    socket.on('close', () => fail(new AgentError('VMMIG_AGENT_DISCONNECTED', "qemu-guest-agent's socket was closed")));
  }

  #receive(from: Socket, reply: QgaReply): void {
    if (this.#socket !== from) return;
    if (this.#waiting === null) throw new AgentError('VMMIG_AGENT_PROTOCOL', 'qemu-guest-agent answers unasked');
    this.#waiting.resolve(reply);
    this.#waiting = null;
  }

  #disconnect(): void {
    clearTimeout(this.#idle);
    this.#isInSync = false;
    this.#waiting = null;
    this.#socket?.destroy();
    this.#socket = null;
  }

  /** Interrupts what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#waiting?.reject(closed());
    await this.#last;
    this.#disconnect();
  }
}

function closed(): AgentError {
  return new AgentError('VMMIG_AGENT_DISCONNECTED', 'The connection to qemu-guest-agent was closed');
}
