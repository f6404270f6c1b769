/**
 * qemu-guest-agent of a domain, through libvirt, whose connection is the only one that the agent's port has:
 * `virsh qemu-agent-command`. libvirt keeps requests and answers apart by itself, and notes in the domain's log that its
 * agent was spoken to (it is "tainted": `custom-ga-command`).
 */
import { AgentError, protocolError } from '../../guest-agent/errors.js';
import { printable } from '../../guest-agent/qga/replies.js';
import { MAX_REQUEST_BYTES, type QgaLimits, type QgaTransport } from '../../guest-agent/qga/transport.js';
import { type DomainAddress, LibvirtError, Virsh } from '../../hypervisor/index.js';
import { untilAborted } from '../untilAborted.js';

/** libvirt counts in seconds, and gives up by itself what was given up here. */
const MS = 1000;

export class VirshQga implements QgaTransport {
  /** Its own: a guest that thinks for long must not keep others waiting who ask libvirt about it. */
  readonly #virsh: Virsh;
  readonly #domain: string;
  readonly #closing = new AbortController();
  #last: Promise<unknown> = Promise.resolve();

  constructor({ uri, domain }: DomainAddress) {
    this.#virsh = new Virsh(uri);
    this.#domain = domain;
  }

  async execute(
    command: string,
    args: Readonly<Record<string, unknown>>,
    { signal, timeoutMs }: QgaLimits,
  ): Promise<unknown> {
    const request = JSON.stringify({ execute: command, arguments: args });
    if (request.length > MAX_REQUEST_BYTES) throw new RangeError(`a request of ${request.length} bytes`);
    signal?.throwIfAborted();
    const seconds = String(Math.ceil(timeoutMs / MS));
    const words = ['qemu-agent-command', '--domain', this.#domain, '--timeout', seconds, '--cmd', request];
    const limit = new AbortController();
    const silence = new AgentError('VMMIG_AGENT_TIMEOUT', `qemu-guest-agent did not answer within ${timeoutMs} ms`);
    const timer = setTimeout(() => limit.abort(silence), timeoutMs);
    const either = AbortSignal.any([limit.signal, this.#closing.signal, ...(signal ? [signal] : [])]);
    const before = this.#last;
    const turn = untilAborted(before, either).then(() =>
      this.#virsh.run(words, { signal: either, timeoutMs: timeoutMs + MS }),
    );
    this.#last = Promise.allSettled([before, turn]);
    try {
      return returned(await turn);
    } catch (thrown) {
      throw thrown instanceof LibvirtError ? agentError(thrown) : thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Interrupts what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new AgentError('VMMIG_AGENT_DISCONNECTED', 'The connection to qemu-guest-agent was closed'));
    await this.#virsh[Symbol.asyncDispose]();
  }
}

/** What the guest has answered is JSON that libvirt has understood; what is in it nobody has looked at. */
function returned(answer: string): unknown {
  try {
    const reply: unknown = JSON.parse(answer);
    if (typeof reply === 'object' && reply !== null && 'return' in reply) return reply.return;
  } catch {
    // Said below.
  }
  throw protocolError('libvirt hands on no answer of qemu-guest-agent');
}

/** libvirt tells by words alone what it is that has failed; those after the command's name are the guest's. */
function agentError(error: LibvirtError): AgentError {
  const [, refusal] = /unable to execute QEMU agent command '.*?': (.*)/s.exec(error.message) ?? [];
  if (refusal !== undefined)
    return new AgentError('VMMIG_AGENT_COMMAND', `qemu-guest-agent says: ${printable(refusal, 300)}`);
  const code = /didn't respond|did not respond|timed? ?out/i.test(error.message)
    ? 'VMMIG_AGENT_TIMEOUT'
    : 'VMMIG_AGENT_UNAVAILABLE';
  return new AgentError(code, `libvirt says: ${printable(error.message, 300)}`, { cause: error });
}
