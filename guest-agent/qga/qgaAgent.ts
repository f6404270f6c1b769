/**
 * vmmig's agent in a guest that has none: brought there through qemu-guest-agent, and gone when it has said what it was
 * asked. QEMU may stop the guest at any moment to move it, and what is in it then goes along: so no agent waits there for
 * the next scan, although that one would have less to say.
 */
import { AgentClient, type ScanOptions, type ScanResult } from '../client.js';
import { AgentError } from '../errors.js';
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
  beganAt: number;
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
  #isScanning = false;

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
   * Scans the guest's page cache, as {@link AgentClient.scan} does, and takes the agent out of the guest. Each scan after
   * the first brings it back, and sends everything, whatever the mode.
   */
  async scan(options: ScanOptions): Promise<ScanResult> {
    if (this.#isScanning) throw new AgentError('VMMIG_AGENT_BUSY', 'A scan of this guest is under way already');
    this.#isScanning = true;
    try {
      const { stream, client } = await this.#use(options.signal);
      using _expected = stream.expect();
      const result = await client.scan(options);
      await stream.verify();
      return result;
    } finally {
      this.#isScanning = false;
      await this.rest();
    }
  }

  /** Takes the agent out of the guest, also in the middle of a scan. Waits a second at most. */
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
    if (session !== null && !session.stream.destroyed && performance.now() - session.beganAt < IDLE_MS) return session;
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
    return { stream, client, beganAt: performance.now() };
  } catch (error) {
    stream.destroy();
    await stream.ended;
    throw error;
  }
}
