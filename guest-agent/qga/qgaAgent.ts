/**
 * vmmig's agent in a guest that has none: brought there when it is needed, through qemu-guest-agent, and gone when it has
 * not been asked for a while.
 */
import { AgentClient, type ScanOptions, type ScanResult } from '../client.js';
import { startAgent } from './start.js';
import { QgaStream } from './stream.js';
import type { QgaTransport } from './transport.js';

/** From its start to its answer. */
const GREETING_TIMEOUT_MS = 5_000;
/** Below the half minute of silence after which it leaves. */
const IDLE_MS = 25_000;

interface Session {
  stream: QgaStream;
  client: AgentClient;
  usedAt: number;
}

export interface QgaAgentOptions {
  /** Of this host: the agent's static binary. */
  program: string;
  signal?: AbortSignal | undefined;
}

export class QgaAgent implements AsyncDisposable {
  readonly via = 'qemu-ga' as const;
  readonly version: string;
  readonly #transport: QgaTransport;
  readonly #program: string;
  #session: Session | null;

  private constructor(transport: QgaTransport, program: string, session: Session) {
    this.#transport = transport;
    this.#program = program;
    this.#session = session;
    this.version = session.client.hello.agentVersion;
  }

  /**
   * Brings the agent into the guest. The transport is the agent's from here on, unless this fails.
   * @throws AgentError `VMMIG_AGENT_START`, `VMMIG_AGENT_COMMAND`, `VMMIG_AGENT_TIMEOUT` when qemu-guest-agent does not
   *   answer, and others; the signal's reason when aborted
   */
  static async open(transport: QgaTransport, { program, signal }: QgaAgentOptions): Promise<QgaAgent> {
    return new QgaAgent(transport, program, await begin(transport, program, signal));
  }

  /**
   * Scans the guest's page cache, as {@link AgentClient.scan} does. An agent that has left is brought back, and sends
   * everything again.
   */
  async scan(options: ScanOptions): Promise<ScanResult> {
    const session = await this.#use(options.signal);
    using _expected = session.stream.expect();
    try {
      const result = await session.client.scan(options);
      await session.stream.verify();
      return result;
    } finally {
      session.usedAt = performance.now();
    }
  }

  /** Takes the agent out of the guest; the next scan brings it back. Waits a second at most. */
  async rest(): Promise<void> {
    const session = this.#session;
    this.#session = null;
    session?.client.close();
    await session?.stream.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rest();
    await this.#transport[Symbol.asyncDispose]();
  }

  async #use(signal: AbortSignal | undefined): Promise<Session> {
    const session = this.#session;
    if (session !== null && !session.stream.destroyed && performance.now() - session.usedAt < IDLE_MS) return session;
    await this.rest();
    this.#session = await begin(this.#transport, this.#program, signal);
    return this.#session;
  }
}

async function begin(transport: QgaTransport, program: string, signal: AbortSignal | undefined): Promise<Session> {
  const stream = new QgaStream(transport, await startAgent(transport, program, signal));
  using _expected = stream.expect();
  try {
    const client = await AgentClient.connect({ stream }, { signal, timeoutMs: GREETING_TIMEOUT_MS });
    return { stream, client, usedAt: performance.now() };
  } catch (error) {
    stream.destroy();
    await stream.ended;
    throw error;
  }
}
