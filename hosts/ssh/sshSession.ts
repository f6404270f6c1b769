/** One SSH connection to a host: opening it (over jump hosts, too), channels on it, and why it is gone. */
import type { Client, ClientChannel } from 'ssh2';
import { HostError, messageOf } from '../errors.js';
import type { SshDestination } from './destination.js';
import { type Login, logIn } from './login.js';
import { resolveTarget, type SshTarget } from './target.js';
import { openProxyCommand, openTcp, type Transport } from './transport.js';

/** For the other end to say goodbye. */
const END_GRACE_MS = 500;

export interface ConnectOptions {
  signal?: AbortSignal | undefined;
  /** For everything, jump hosts included. Default: the target's. */
  timeoutMs?: number | undefined;
}

export class SshSession implements AsyncDisposable {
  /** Resolves when the connection is over: undefined when it was disposed of, else why it was lost. */
  readonly closed: Promise<HostError | undefined>;
  readonly #target: SshTarget;
  readonly #client: Client;
  readonly #transport: Transport;
  #finish: (reason: HostError | undefined) => void = () => {};
  #ending: Promise<void> | undefined;

  private constructor(target: SshTarget, transport: Transport, { client, ended }: Login) {
    this.#target = target;
    this.#client = client;
    this.#transport = transport;
    this.closed = new Promise((resolve) => {
      this.#finish = resolve;
    });
    void ended.then((failure) => {
      this.#finish(this.#ending ? undefined : this.#lost(failure));
      void transport[Symbol.asyncDispose]();
    });
  }

  /**
   * Connects and logs in.
   * @throws HostError VMMIG_SSH_UNREACHABLE, VMMIG_SSH_AUTH, VMMIG_SSH_HOST_KEY, VMMIG_SSH_PROTOCOL, VMMIG_SSH_CONFIG;
   *   the signal's reason when aborted. Nothing stays open then.
   */
  static async connect(target: SshTarget, options: ConnectOptions = {}): Promise<SshSession> {
    const timeoutMs = options.timeoutMs ?? target.connectTimeoutMs;
    const timeout = new AbortController();
    const timer = setTimeout(() => {
      const message = `${target.name} (${target.hostName}, port ${target.port}) did not answer within ${timeoutMs} ms`;
      timeout.abort(new HostError('VMMIG_SSH_UNREACHABLE', target.name, message));
    }, timeoutMs);
    const signal = options.signal ? AbortSignal.any([options.signal, timeout.signal]) : timeout.signal;
    try {
      return await SshSession.#connect(target, signal);
    } finally {
      clearTimeout(timer);
    }
  }

  static async #connect(target: SshTarget, signal: AbortSignal): Promise<SshSession> {
    signal.throwIfAborted();
    const transport = await SshSession.#openTransport(target, signal);
    try {
      return new SshSession(target, transport, await logIn(target, transport, signal));
    } catch (error) {
      await transport[Symbol.asyncDispose]();
      throw error;
    }
  }

  static async #openTransport(target: SshTarget, signal: AbortSignal): Promise<Transport> {
    if (target.proxyCommand !== undefined) return openProxyCommand(target, target.proxyCommand);
    const last = target.proxyJump.at(-1);
    return last ? await SshSession.#openJump(target, last, signal) : openTcp(target);
  }

  /** Logs in to the last jump host, through those before it, which then connects onwards. */
  static async #openJump(target: SshTarget, last: SshDestination, signal: AbortSignal): Promise<Transport> {
    const session = await SshSession.#connect(await jumpTarget(target, last), signal);
    try {
      const stream = await session.forward(target.hostName, target.port);
      return {
        stream,
        bytesOnWire: () => session.bytesOnWire(),
        diagnosis: () => '',
        [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
      };
    } catch (error) {
      await session[Symbol.asyncDispose]();
      throw new HostError(
        'VMMIG_SSH_UNREACHABLE',
        target.name,
        `${target.name} cannot be reached: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    }
  }

  /** Starts a command, which the login shell gets as it is. */
  async exec(command: string): Promise<ClientChannel> {
    return await this.#open('start a command', (done) => this.#client.exec(command, done));
  }

  /** Opens a connection from the host to another one. */
  async forward(host: string, port: number): Promise<ClientChannel> {
    const what = `connect to ${host}, port ${port}`;
    return await this.#open(what, (done) => this.#client.forwardOut('127.0.0.1', 0, host, port, done));
  }

  bytesOnWire(): number {
    return this.#transport.bytesOnWire();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    const timer = setTimeout(() => this.#finish(undefined), END_GRACE_MS);
    const { stream } = this.#transport;
    // That the host closes its end, too, is told a round trip after the farewell, and of no interest.
    const isSaid = new Promise<void>((resolve) => void stream.once('finish', resolve));
    this.#client.end();
    await Promise.race([this.closed, isSaid]);
    clearTimeout(timer);
    await this.#transport[Symbol.asyncDispose]();
  }

  async #open(
    what: string,
    start: (done: (error: Error | undefined, channel: ClientChannel) => void) => void,
  ): Promise<ClientChannel> {
    const { name } = this.#target;
    const opened = new Promise<ClientChannel>((resolve, reject) => {
      const refuse = (cause: unknown) => {
        const error = new HostError('VMMIG_HOST_COMMAND', name, `${name} refused to ${what}: ${messageOf(cause)}`, {
          cause,
        });
        // When the connection is going, that is the reason: it has until the next turn to say so.
        setImmediate(reject, error);
      };
      try {
        start((error, channel) => (error ? refuse(error) : resolve(channel)));
      } catch (error) {
        refuse(error); // not connected any more
      }
    });
    const lost = this.closed.then((reason): never => {
      throw reason ?? new HostError('VMMIG_SSH_LOST', name, `the SSH session to ${name} has been closed`);
    });
    return await Promise.race([opened, lost]);
  }

  #lost(failure: unknown): HostError {
    const why = failure === undefined ? 'the host closed it' : messageOf(failure);
    const message = `the SSH connection to ${this.#target.name} was lost: ${why}`;
    return new HostError('VMMIG_SSH_LOST', this.#target.name, message, { cause: failure });
  }
}

/** A jump host is found in ssh_config like any other, except for the way there. */
async function jumpTarget(target: SshTarget, { user, host, port }: SshDestination): Promise<SshTarget> {
  const jump = await resolveTarget({
    name: `${host}, the jump host of ${target.name}`,
    ssh: `${user === undefined ? '' : `${user}@`}[${host}]${port === undefined ? '' : `:${port}`}`,
    ...(target.sshConfig !== undefined && { sshConfig: target.sshConfig }),
  });
  // As OpenSSH: what comes before it in the list, whatever its own section says; and never itself.
  const before = target.proxyJump.slice(0, -1);
  return { ...jump, proxyJump: before.length > 0 ? before : jump.proxyJump.filter((hop) => hop.host !== host) };
}
