/** Whether a guest has an agent, and how that is reached. Nothing is brought into the guest to find out. */
import { AgentClient } from '../guest-agent/client.js';
import { AgentError } from '../guest-agent/errors.js';
import type { AgentRoute } from '../guest-agent/guestAgent.js';
import { checkQga } from '../guest-agent/qga/start.js';
import type { QgaTransport } from '../guest-agent/qga/transport.js';

const answerTimeoutMs = 500;

/**
 * @param port - the host's end of the agent's own port
 * @param qga - the way to qemu-guest-agent, which is disposed of
 * @returns null when nobody answers, or qemu-guest-agent is not allowed what is needed
 */
export async function probeAgent(
  port: string | null,
  qga: QgaTransport | null,
  signal: AbortSignal,
): Promise<AgentRoute | null> {
  await using transport = qga;
  const [hasPort, hasQga] = await Promise.all([
    port !== null && answers(connect(port, signal), signal),
    transport !== null && answers(checkQga(transport, signal), signal),
  ]);
  return hasPort ? 'port' : hasQga ? 'qemu-ga' : null;
}

async function connect(path: string, signal: AbortSignal): Promise<void> {
  const agent = await AgentClient.connect({ path }, { signal, timeoutMs: answerTimeoutMs });
  await agent.close();
}

async function answers(asked: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  try {
    await asked;
    return true;
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof AgentError) return false;
    throw thrown;
  }
}
