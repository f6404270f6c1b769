/** A guest's agent, whichever way it is reached: its own port, or qemu-guest-agent. */
import { setTimeout as delay } from 'node:timers/promises';
import { AgentClient, type ScanOptions, type ScanResult } from './client.js';
import { AgentError } from './errors.js';
import { agentProgram } from './program.js';
import { QgaAgent } from './qga/qgaAgent.js';
import { checkQga } from './qga/start.js';
import type { QgaTransport } from './qga/transport.js';

export type AgentRoute = 'port' | 'qemu-ga';

export interface GuestAgent extends AsyncDisposable {
  readonly via: AgentRoute;
  /** Of the agent. */
  readonly version: string;
  /** See {@link AgentClient.scan}. */
  scan(options: ScanOptions): Promise<ScanResult>;
  /** Leaves nothing in the guest that was not there before; another scan may follow. Takes a second at most. */
  rest(): Promise<void>;
}

export interface AgentRoutes {
  /** The host's end of the agent's own port. */
  port: string | null;
  /** The way to qemu-guest-agent. */
  qga: QgaTransport | null;
}

export interface OpenAgentOptions {
  signal?: AbortSignal | undefined;
  /** The binary to bring into the guest; vmmig's own unless given. */
  program?: string;
}

/** An agent with a port of its own answers in a fraction of this, and then nobody else is troubled. */
const PORT_FIRST_MS = 300;

/**
 * Finds a guest's agent: its own port goes before qemu-guest-agent. `routes.qga` is disposed of with the agent, and at
 * once where it is of no use.
 * @throws AgentError why there is none: what qemu-guest-agent says if it answers, else `VMMIG_AGENT_UNAVAILABLE`;
 *   the signal's reason when aborted
 */
export async function openAgent({ port, qga }: AgentRoutes, options: OpenAgentOptions = {}): Promise<GuestAgent> {
  const { signal } = options;
  const own = port === null ? Promise.resolve(null) : openPort(port, signal);
  let agent: GuestAgent | null = null;
  try {
    agent = await Promise.race([own, delay(PORT_FIRST_MS, null, { ref: false })]);
    if (agent !== null) return agent;
    // Meanwhile: both take their time to say that nobody is there.
    const checked = qga === null ? noQga() : checkQga(qga, signal);
    checked.catch(() => {});
    agent = await own;
    if (agent !== null) return agent;
    await checked.catch(explain);
    agent = await QgaAgent.open(qga!, { program: options.program ?? agentProgram(), signal });
    return agent;
  } finally {
    if (agent?.via !== 'qemu-ga') await qga?.[Symbol.asyncDispose]();
  }
}

/** Null when nobody answers there. */
async function openPort(path: string, signal: AbortSignal | undefined): Promise<GuestAgent | null> {
  try {
    const client = await AgentClient.connect({ path }, { signal });
    return {
      via: 'port',
      version: client.hello.agentVersion,
      scan: (options) => client.scan(options),
      rest: async () => {},
      [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
    };
  } catch (error) {
    if (error instanceof AgentError) return null;
    throw error;
  }
}

async function noQga(): Promise<never> {
  throw new AgentError('VMMIG_AGENT_UNAVAILABLE', 'the guest has no port for it');
}

/** That nobody answers has many reasons, of which the caller need know one. */
function explain(error: unknown): never {
  const answers = error instanceof AgentError && error.code === 'VMMIG_AGENT_BLOCKED';
  if (!(error instanceof AgentError) || answers) throw error;
  const message = `No guest agent answers, and no qemu-guest-agent: ${error.message}`;
  throw new AgentError('VMMIG_AGENT_UNAVAILABLE', message, { cause: error });
}
