/** Starts vmmig's own service on a host, over a session, and connects to it. The service ends with the session. */
import { setTimeout as delay } from 'node:timers/promises';
import { HostError } from './errors.js';
import { openRpc, type RpcClient } from './rpc/client.js';
import type { HostProcess, HostSession } from './session.js';

/** A service whose stdin ended has this long to put things in order. */
const GRACE_MS = 5_000;
/** Between the end of a process's output and the news of its exit. */
const EXIT_NEWS_MS = 2_000;

export interface HostService extends AsyncDisposable {
  readonly rpc: RpcClient;
  readonly process: HostProcess;
}

export interface StartHostServiceOptions {
  /** This vmmig's version, for the other end's messages. */
  version?: string;
  signal?: AbortSignal;
  /** From the start to the handshake. Default: 20 s. */
  timeoutMs?: number;
}

/**
 * Runs `vmmig host-service` on the host, and does not wait until it is up: `rpc.greeted` tells.
 * @param vmmigCommand the host's vmmig, as in the inventory.
 * @throws HostError VMMIG_SSH_LOST; the signal's reason when aborted. `greeted` rejects with HostError
 *   VMMIG_HOST_NO_VMMIG, VMMIG_HOST_INCOMPATIBLE, VMMIG_HOST_SERVICE_ENDED, VMMIG_HOST_TIMEOUT, VMMIG_SSH_LOST.
 */
export async function startHostService(
  session: HostSession,
  vmmigCommand: readonly string[],
  options: StartHostServiceOptions = {},
): Promise<HostService> {
  options.signal?.throwIfAborted();
  const process = await session.spawn([...vmmigCommand, 'host-service']);
  const rpc = openRpc(process.stdout, process.stdin, {
    ...options,
    host: session.name,
    whyEnded: (duringHandshake) => whyEnded(session, process, duringHandshake),
  });
  return {
    rpc,
    process,
    async [Symbol.asyncDispose]() {
      await rpc[Symbol.asyncDispose]();
      const isUp = await rpc.greeted.then(
        () => true,
        () => false,
      );
      if (isUp) await Promise.race([process.exited, delay(GRACE_MS, undefined, { ref: false })]);
      await process[Symbol.asyncDispose]();
    },
  };
}

async function whyEnded(session: HostSession, process: HostProcess, duringHandshake: boolean): Promise<Error> {
  const exit = await Promise.race([process.exited, delay(EXIT_NEWS_MS, undefined, { ref: false })]);
  const lost = exit?.exitCode == null && exit?.signal == null;
  if (lost) {
    const reason = await Promise.race([session.closed, delay(EXIT_NEWS_MS, undefined, { ref: false })]);
    if (reason) return reason;
  }
  const said = process.stderrTail().trim();
  const stderr = said === '' ? '' : `; it said:\n${said}`;
  // What a POSIX shell exits with when it finds no such command, or may not run it.
  if (duringHandshake && (exit?.exitCode === 127 || exit?.exitCode === 126)) {
    return new HostError(
      'VMMIG_HOST_NO_VMMIG',
      session.name,
      `"${process.command}" cannot be run on ${session.name}: install vmmig there, or name its path as ` +
        `\`vmmig:\` of the host in the inventory${stderr}`,
    );
  }
  const how = exit?.signal
    ? `was killed by ${exit.signal}`
    : exit
      ? `exited with code ${exit.exitCode}`
      : 'closed its output';
  return new HostError('VMMIG_HOST_SERVICE_ENDED', session.name, `vmmig on ${session.name} ${how}${stderr}`);
}
