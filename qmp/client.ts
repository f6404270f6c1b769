/**
 * A client of QEMU's monitor: what the rest of vmmig talks to. Adds deadlines and signals to a connection. Not for
 * policy: what to send, and when, is its users' business.
 *
 *     await using qmp = await QmpClient.connect({ path: '/run/vm1.qmp' });
 *     const stopped = qmp.waitFor('STOP', { timeoutMs: 5_000 });   // armed before the command is sent
 *     await qmp.execute('stop');
 *     await stopped;
 */
import { type Negotiated, QmpConnection } from './connection.js';
import { type QmpError, QmpGreetingError, QmpInterruptedError } from './errors.js';
import type { QmpEventFilter } from './eventHub.js';
import { EventStream } from './eventStream.js';
import { waitForEvent } from './eventWaiter.js';
import { describeInterruption, onInterruption, type QmpLimits } from './interruption.js';
import type { QmpGreeting } from './messages.js';
import { QmpSchema } from './schema.js';
import type { QmpPendingCommand } from './session.js';
import { openTransport, type QmpTransportTarget } from './transport.js';
import type { ExecuteParameters, QmpCommands, ReturnOf } from './types/commands.js';
import type { QmpEvent } from './types/events.js';

export interface QmpConnectOptions extends QmpLimits {
  /** Until the session is negotiated. Default 10 s. */
  timeoutMs?: number | undefined;
  /** Enable out-of-band execution: `true` insists on it, `false` does without, by default when offered. */
  oob?: boolean | undefined;
  /** Keep trying while nothing listens at the address yet, as with a QEMU that is just starting. Default false. */
  retry?: boolean | undefined;
  /** Deadline of commands that name none. Default 60 s: slow storage may hold QEMU up for many seconds. */
  commandTimeoutMs?: number | undefined;
  /** Longest line to accept or to send. Default 10 MiB. */
  maxLineBytes?: number | undefined;
}

export interface QmpExecuteOptions extends QmpLimits {
  /** Execute out of band, past the commands that wait or run; for the few commands that allow it. */
  oob?: boolean | undefined;
}

export interface QmpEventsOptions {
  /** Abort ends the stream with {@link QmpInterruptedError}. */
  signal?: AbortSignal | undefined;
  /** Events kept for a slow reader before the stream ends with {@link QmpOverflowError}. Default 1024. */
  queueLimit?: number | undefined;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
const DEFAULT_COMMAND_TIMEOUT_MS = 60_000;
const DEFAULT_QUEUE_LIMIT = 1024;

export class QmpClient implements AsyncDisposable {
  readonly greeting: QmpGreeting;
  /** Whether commands may be executed with `{ oob: true }`. */
  readonly oobEnabled: boolean;
  readonly #connection: QmpConnection;
  readonly #commandTimeoutMs: number;
  #schema: Promise<QmpSchema> | undefined;

  private constructor(connection: QmpConnection, { greeting, oobEnabled }: Negotiated, commandTimeoutMs: number) {
    this.#connection = connection;
    this.greeting = greeting;
    this.oobEnabled = oobEnabled;
    this.#commandTimeoutMs = commandTimeoutMs;
  }

  /**
   * Opens the transport, reads the greeting and negotiates. Owns a `{ stream }` target from the call on, also when it
   * fails.
   *
   * @throws {QmpConnectError} the transport did not open (in time)
   * @throws {QmpGreetingError} the peer did not greet and negotiate (in time)
   * @throws {QmpInterruptedError} aborted
   */
  static async connect(target: QmpTransportTarget, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const timeoutMs = options.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
    const giveUp = new AbortController();
    let aborted: QmpInterruptedError | undefined;
    const disarm = onInterruption({ signal: options.signal, timeoutMs }, (reason, cause) => {
      const why = describeInterruption(reason, timeoutMs);
      if (reason === 'abort')
        aborted = new QmpInterruptedError(`connecting to a QMP monitor: ${why}`, reason, { cause });
      giveUp.abort(aborted ?? new Error(why));
    });
    try {
      const stream = await openTransport(target, options.retry ?? false, giveUp.signal);
      const connection = new QmpConnection(stream, options);
      const end = () => {
        // A QEMU that has a client leaves others in the listen queue, where they connect and wait for ever.
        const silent = `no QMP greeting within ${timeoutMs} ms: is another client connected? A monitor serves one at a time`;
        void connection.end(aborted ?? new QmpGreetingError(silent));
      };
      if (giveUp.signal.aborted) end();
      else giveUp.signal.addEventListener('abort', end);
      const negotiated = await connection.negotiated;
      return new QmpClient(connection, negotiated, options.commandTimeoutMs ?? DEFAULT_COMMAND_TIMEOUT_MS);
    } catch (error) {
      if ('stream' in target) target.stream.destroy();
      throw aborted ?? error;
    } finally {
      disarm();
    }
  }

  /** Why the connection ended; `undefined` when `close` ended it. Never rejects. */
  get closed(): Promise<QmpError | undefined> {
    return this.#connection.closed;
  }

  /**
   * Executes a command. At most eight commands are with QEMU at a time, others wait here; out-of-band ones never wait.
   *
   * @throws {QmpCommandError} QEMU refused or failed it
   * @throws {QmpInterruptedError} disconnect, `close`, abort, or no answer within `timeoutMs` (waiting included); its
   *   `sent` tells whether QEMU may have executed the command
   * @throws {QmpProtocolError} the command cannot be sent: too long, not Unicode, or out of band where that was not negotiated
   */
  execute<C extends keyof QmpCommands>(
    name: C,
    ...parameters: ExecuteParameters<C, QmpExecuteOptions>
  ): Promise<ReturnOf<C>>;
  execute<S extends string>(
    name: S & (S extends keyof QmpCommands ? never : unknown),
    args?: Readonly<Record<string, unknown>>,
    options?: QmpExecuteOptions,
  ): Promise<unknown>;
  execute(name: string, args?: object, options: QmpExecuteOptions = {}): Promise<unknown> {
    const { signal, timeoutMs = this.#commandTimeoutMs, oob = false } = options;
    return new Promise((resolve, reject) => {
      let command: QmpPendingCommand | undefined;
      const disarm = onInterruption({ signal, timeoutMs }, (reason, cause) => {
        const sent = command?.sent ?? false;
        if (command !== undefined) this.#connection.session.abandon(command);
        const why = describeInterruption(reason, timeoutMs);
        reject(new QmpInterruptedError(`${name}: ${why}`, reason, { cause, command: name, sent }));
      });
      if (signal?.aborted) return;
      const settle = <T>(then: (outcome: T) => void) => {
        return (outcome: T) => {
          disarm();
          then(outcome);
        };
      };
      try {
        const { session } = this.#connection;
        command = session.submit({ name, arguments: args, oob, resolve: settle(resolve), reject: settle(reject) });
      } catch (error) {
        disarm();
        reject(error);
      }
    });
  }

  /**
   * Events from now on, queued for this reader alone. The iteration ends with {@link QmpInterruptedError} on disconnect
   * or abort and with {@link QmpOverflowError} when the queue is full, each after the events that came before;
   * it ends without error when `close` is called.
   */
  events<E extends string>(
    filter?: QmpEventFilter<E>,
    { signal, queueLimit = DEFAULT_QUEUE_LIMIT }: QmpEventsOptions = {},
  ): AsyncIterableIterator<QmpEvent<E>, undefined> & AsyncDisposable {
    const hub = this.#connection.events;
    let disarm = () => {};
    const stream = new EventStream(filter, queueLimit, (self) => {
      disarm();
      hub.delete(self);
    });
    disarm = onInterruption({ signal }, (reason, cause) => {
      stream.end(new QmpInterruptedError('the stream of QMP events was aborted', reason, { cause }));
    });
    if (!signal?.aborted) hub.add(stream);
    return stream;
  }

  /**
   * The next event that passes the filter; listens from the call on, so call it before the command that causes the
   * event. No deadline by default. A promise that is never awaited does no harm.
   *
   * @returns rejects with {@link QmpInterruptedError} on disconnect, `close`, abort or timeout
   */
  waitFor<E extends string>(filter: QmpEventFilter<E>, limits: QmpLimits = {}): Promise<QmpEvent<E>> {
    return waitForEvent(this.#connection.events, filter, limits);
  }

  /** What this QEMU supports; asked once per connection. */
  schema(): Promise<QmpSchema> {
    if (this.#schema === undefined) {
      const schema = this.execute('query-qmp-schema').then((entries) => new QmpSchema(entries));
      schema.catch(() => {
        this.#schema = undefined;
      });
      this.#schema = schema;
    }
    return this.#schema;
  }

  /** Ends the connection; what is not settled fails with {@link QmpInterruptedError}. May be called again. */
  async close(): Promise<void> {
    await this.#connection.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
