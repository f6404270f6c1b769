/** Commands to qemu-guest-agent, whichever way they get there: a chardev's socket, or whoever manages the guest. */

export interface QgaLimits {
  signal?: AbortSignal | undefined;
  /** For all of it, also for the time that other commands take before it. */
  timeoutMs: number;
}

/** The way to one guest's qemu-guest-agent. Commands are carried out one after the other. */
export interface QgaTransport extends AsyncDisposable {
  /**
   * What the command returned, which nobody has looked at yet: it comes from the guest. No request is longer than
   * {@link MAX_REQUEST_BYTES}.
   * @throws AgentError `VMMIG_AGENT_COMMAND` when the guest refused or failed it, `VMMIG_AGENT_TIMEOUT`,
   *   `VMMIG_AGENT_UNAVAILABLE`, `VMMIG_AGENT_DISCONNECTED`, `VMMIG_AGENT_PROTOCOL`; the signal's reason when aborted.
   *   After any of them the next command starts afresh.
   */
  execute(command: string, args: Readonly<Record<string, unknown>>, limits: QgaLimits): Promise<unknown>;
}

/** As JSON. Linux takes 128 KiB as one argument of a program, which is what a request may have to become. */
export const MAX_REQUEST_BYTES = 120 * 1024;
