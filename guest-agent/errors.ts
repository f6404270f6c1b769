/** What can go wrong between the host and a guest's agent: a closed list of codes, one error class. */

export type AgentErrorCode =
  /** No agent answers: none installed, not running, the socket is not there or in use. */
  | 'VMMIG_AGENT_UNAVAILABLE'
  /** The agent speaks no protocol version that we speak. */
  | 'VMMIG_AGENT_VERSION'
  /** The agent's kernel cannot tell where its page cache is, or its pages are not 4 KiB. */
  | 'VMMIG_AGENT_UNSUPPORTED'
  /** A scan is under way already. */
  | 'VMMIG_AGENT_BUSY'
  /** The agent did not answer in time. */
  | 'VMMIG_AGENT_TIMEOUT'
  /** What arrived is not what an agent may send; the connection was closed. */
  | 'VMMIG_AGENT_PROTOCOL'
  /** The connection ended. */
  | 'VMMIG_AGENT_DISCONNECTED'
  /** qemu-guest-agent answers, and is not allowed to run programs. */
  | 'VMMIG_AGENT_BLOCKED'
  /** qemu-guest-agent could not do what it was asked to. */
  | 'VMMIG_AGENT_COMMAND'
  /** The agent that qemu-guest-agent was given does not run in the guest. */
  | 'VMMIG_AGENT_START';

/** An error of the guest agent's connection. The guest itself is not affected by any of them. */
export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: AgentErrorCode;

  constructor(code: AgentErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** For input that breaks the protocol. */
export function protocolError(message: string): AgentError {
  return new AgentError('VMMIG_AGENT_PROTOCOL', `The guest agent sent something invalid: ${message}`);
}
