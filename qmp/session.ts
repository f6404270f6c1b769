/**
 * The QMP conversation: greeting, negotiation, commands and their replies, events. I/O-free: bytes in by `receive`,
 * text out by `handler.send`. Not for deadlines or signals: those belong to the client.
 *
 *     greeting ──qmp_capabilities──> negotiating ──reply──> running ──end──> ended
 *
 * At most {@link MAX_IN_FLIGHT} in-band commands are with QEMU; the rest wait here, in order. QEMU stops reading its
 * monitor when its own queue of eight is full, and then would not see an out-of-band command: those never wait.
 *
 * What a reply belongs to is decided by its id alone. Ids of one session start with a prefix of its own, because a
 * monitor may still answer what an earlier client asked.
 *
 * | reply                                  | what happens |
 * |---|---|
 * | id of a command in flight              | settles it |
 * | id of an abandoned command             | dropped; only now its place in flight is free, since QEMU was busy with it |
 * | id of ours, but not in flight          | protocol error, the session ends |
 * | id that is not ours                    | dropped: the answer to an earlier client |
 * | success without id                     | dropped likewise: QEMU repeats the id of every command it could parse |
 * | error without id, commands in flight   | protocol error: QEMU could not parse something of ours, nobody knows what |
 * | error without id, nothing in flight    | dropped: an earlier client's |
 *
 * Source: QEMU, docs/interop/qmp-spec.rst.
 */
import { randomBytes } from 'node:crypto';
import { QmpCommandError, QmpError, QmpGreetingError, QmpInterruptedError, QmpProtocolError } from './errors.js';
import { DEFAULT_MAX_LINE_BYTES, LineFramer } from './framer.js';
import { parseMessage, type QmpGreeting, type QmpMessage } from './messages.js';
import type { QmpEvent } from './types/events.js';

/** The length of QEMU's own queue of in-band commands (QMP_REQ_QUEUE_LEN_MAX). */
export const MAX_IN_FLIGHT = 8;

/**
 * Text that QEMU's JSON parser refuses: noncharacters, and lone surrogates, which JSON.stringify has escaped. It would
 * answer with an error without id.
 */
const UNSENDABLE = /\p{Noncharacter_Code_Point}|(?<!\\)(?:\\\\)*\\ud[89a-f]/u;

/** What a session tells its owner. None of these may throw. */
export interface QmpSessionHandler {
  /** Bytes for the peer, as text. */
  send(text: string): void;
  /** Negotiation succeeded: commands may be submitted. */
  ready(greeting: QmpGreeting, oobEnabled: boolean): void;
  event(event: QmpEvent): void;
  /** The session is over; called once, after every command was settled. `undefined`: ended by its owner without a cause. */
  ended(cause: QmpError | undefined): void;
}

export interface QmpSessionOptions {
  /** Enable out-of-band execution: `true` insists on it, `false` does without, by default when offered. */
  oob?: boolean | undefined;
  maxLineBytes?: number | undefined;
}

export interface QmpRequest {
  readonly name: string;
  readonly arguments?: object | undefined;
  /** Execute out of band. */
  readonly oob: boolean;
  /** Called once, unless the command is abandoned before. */
  resolve(value: unknown): void;
  reject(error: QmpError): void;
}

/** A submitted command: what `abandon` takes. */
export interface QmpPendingCommand {
  readonly sent: boolean;
}

class PendingCommand implements QmpPendingCommand {
  sent = false;
  abandoned = false;

  constructor(
    readonly id: string,
    readonly request: QmpRequest,
    readonly text: string,
  ) {}
}

export class QmpSession {
  readonly #handler: QmpSessionHandler;
  readonly #options: QmpSessionOptions;
  readonly #framer: LineFramer;
  readonly #idPrefix = `vmmig-${randomBytes(6).toString('hex')}-`;
  readonly #maxRequestBytes: number;
  /** Chunks to read, the one being read first. */
  readonly #unread: Uint8Array[] = [];
  #state: 'greeting' | 'negotiating' | 'running' | 'ended' = 'greeting';
  #endCause: QmpError | undefined;
  #oobEnabled = false;
  #nextId = 1;
  readonly #queued = new Set<PendingCommand>();
  readonly #inFlight = new Map<string, PendingCommand>();
  #inBandInFlight = 0;
  #strayReplies = 0;

  constructor(handler: QmpSessionHandler, options: QmpSessionOptions = {}) {
    this.#handler = handler;
    this.#options = options;
    this.#maxRequestBytes = options.maxLineBytes ?? DEFAULT_MAX_LINE_BYTES;
    this.#framer = new LineFramer(this.#maxRequestBytes);
  }

  /** Replies that belonged to no command of this session. */
  get strayReplies(): number {
    return this.#strayReplies;
  }

  /** Takes the peer's next bytes. Whatever they are, the worst outcome is `handler.ended` with a typed error. */
  receive(chunk: Uint8Array): void {
    if (this.#isEnded()) return;
    this.#unread.push(chunk);
    // A stream inside this process may answer what is sent from here before `send` returns.
    if (this.#unread.length > 1) return;
    try {
      for (let next = this.#unread[0]; next !== undefined && !this.#isEnded(); next = this.#unread[0]) {
        for (const line of this.#framer.push(next)) {
          this.#take(parseMessage(line));
          if (this.#isEnded()) break;
        }
        this.#unread.shift();
      }
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#fail(error);
    }
  }

  /** The peer will send nothing more; `cause` is the transport's error, if it gave one. */
  receiveEnd(cause?: unknown): void {
    const where = this.#framer.pendingBytes > 0 ? ' in the middle of a message' : '';
    this.#fail(
      new QmpInterruptedError(
        `the QMP connection was ${cause === undefined ? 'closed by the peer' : 'lost'}${where}`,
        'disconnect',
        { cause },
      ),
    );
  }

  /**
   * Sends a command, or queues it while {@link MAX_IN_FLIGHT} are with QEMU.
   *
   * @throws {QmpInterruptedError} when the session has ended
   * @throws {QmpProtocolError} when `oob` was not negotiated, or the command is longer than a line may be or holds
   *   text that QEMU cannot take
   */
  submit(request: QmpRequest): QmpPendingCommand {
    if (this.#state === 'ended') throw interrupted(request.name, false, this.#endCause);
    if (this.#state !== 'running') throw new QmpProtocolError(`${request.name}: the QMP session is not ready`);
    if (request.oob && !this.#oobEnabled) {
      throw new QmpProtocolError(`${request.name}: out-of-band execution was not negotiated`);
    }
    return this.#enqueue(request);
  }

  /**
   * Gives a command up: it is never settled. One that still waits here is never sent; the reply to one that was sent
   * is dropped when it comes.
   */
  abandon(command: QmpPendingCommand): void {
    if (!(command instanceof PendingCommand)) return;
    command.abandoned = true;
    this.#queued.delete(command);
  }

  /** Ends the session: commands not settled yet fail with {@link QmpInterruptedError}, with `cause` as its cause. */
  end(cause?: QmpError): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#endCause = cause;
    const unsettled = [...this.#inFlight.values(), ...this.#queued];
    this.#inFlight.clear();
    this.#queued.clear();
    for (const command of unsettled) {
      if (!command.abandoned) command.request.reject(interrupted(command.request.name, command.sent, cause));
    }
    this.#handler.ended(cause);
  }

  /** Whatever the peer does before negotiation is complete is a failed greeting. */
  #fail(cause: QmpError): void {
    const early = this.#state !== 'running' && !(cause instanceof QmpGreetingError);
    this.end(early ? new QmpGreetingError(`this is no usable QMP monitor: ${cause.message}`, cause) : cause);
  }

  // `#state` changes inside calls that TypeScript's narrowing does not see.
  #isEnded(): boolean {
    return this.#state === 'ended';
  }

  #take(message: QmpMessage): void {
    if (this.#state === 'greeting') {
      // QEMU tells at once of what happens between a client's connecting and its own noticing that.
      if (message.kind === 'event') return;
      if (message.kind !== 'greeting')
        throw new QmpGreetingError(`the peer sent a ${message.kind} before its greeting`);
      this.#negotiate(message.greeting);
    } else if (message.kind === 'greeting') {
      throw new QmpProtocolError('the peer greeted twice');
    } else if (message.kind === 'event') {
      this.#handler.event(message.event);
    } else {
      this.#takeReply(message);
    }
  }

  #negotiate(greeting: QmpGreeting): void {
    const offered = greeting.capabilities.includes('oob');
    if (this.#options.oob === true && !offered) {
      throw new QmpGreetingError('the peer does not offer out-of-band execution');
    }
    const oob = offered && this.#options.oob !== false;
    this.#state = 'negotiating';
    this.#enqueue({
      name: 'qmp_capabilities',
      arguments: { enable: oob ? ['oob'] : [] },
      oob: false,
      resolve: () => {
        this.#state = 'running';
        this.#oobEnabled = oob;
        this.#handler.ready(greeting, oob);
      },
      reject: (error) => this.end(new QmpGreetingError('the peer refused the negotiation', error)),
    });
  }

  #enqueue(request: QmpRequest): PendingCommand {
    const id = `${this.#idPrefix}${this.#nextId++}`;
    const verb = request.oob ? 'exec-oob' : 'execute';
    const text = `${JSON.stringify({ [verb]: request.name, arguments: request.arguments, id })}\n`;
    if (Buffer.byteLength(text) > this.#maxRequestBytes) {
      throw new QmpProtocolError(`${request.name}: the command is longer than ${this.#maxRequestBytes} bytes`);
    }
    if (UNSENDABLE.test(text))
      throw new QmpProtocolError(`${request.name}: the command contains text that is not Unicode`);
    const command = new PendingCommand(id, request, text);
    if (request.oob) {
      this.#send(command);
    } else {
      this.#queued.add(command);
      this.#sendQueued();
    }
    return command;
  }

  #sendQueued(): void {
    for (const command of this.#queued) {
      if (this.#inBandInFlight >= MAX_IN_FLIGHT) return;
      this.#queued.delete(command);
      this.#inBandInFlight++;
      this.#send(command);
    }
  }

  #send(command: PendingCommand): void {
    command.sent = true;
    this.#inFlight.set(command.id, command);
    this.#handler.send(command.text);
  }

  #takeReply(reply: QmpMessage & { kind: 'success' | 'failure' }): void {
    const { id } = reply;
    if (typeof id !== 'string' || !id.startsWith(this.#idPrefix)) {
      if (id === undefined && reply.kind === 'failure' && this.#inFlight.size > 0) {
        throw new QmpProtocolError(`the peer did not understand a command, without saying which: ${reply.desc}`);
      }
      this.#strayReplies++;
      return;
    }
    const command = this.#inFlight.get(id);
    if (command === undefined) throw new QmpProtocolError(`the peer answered ${id}, which is not in flight`);
    this.#inFlight.delete(id);
    if (!command.request.oob) this.#inBandInFlight--;
    if (!command.abandoned) {
      const { request } = command;
      if (reply.kind === 'success') request.resolve(reply.value);
      else request.reject(new QmpCommandError(request.name, reply.errorClass, reply.desc));
    }
    if (!this.#isEnded()) this.#sendQueued();
  }
}

function interrupted(command: string, sent: boolean, cause: QmpError | undefined): QmpInterruptedError {
  const why = cause === undefined ? 'the QMP client was closed' : cause.message;
  const reason = cause === undefined ? 'closed' : 'disconnect';
  return new QmpInterruptedError(`${command}: ${why}`, reason, { cause, command, sent });
}
